"""``specee generate``: stream an answer, then say how fast it was."""

from __future__ import annotations

import argparse
import sys

from specee.cli import bandwidth
from specee.cli.common import decoding, load_model, print_stream
from specee.cli.output_file import check_writable, write_whole
from specee.cli.stats import print_statistics
from specee.engine import Generation
from specee.model import Model
from specee.policies import make_policy


def run(options: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    if options.trace is not None:
        check_writable(options.trace, "--trace")
    make_policy(options.policy)  # a wrong name is told of before a model is fetched
    model = load_model(options)
    text = sys.stdin.read() if options.prompt == "-" else options.prompt
    prompt = model.encode(text, raw=options.raw)
    if options.compare:
        from specee.cli.compare import compare

        _follow_up(model, compare(model, prompt, decoding(options), options.policy), options)
        return 0
    generation = model.start(prompt, policy=options.policy, **decoding(options))
    try:
        print_stream(generation, model.tokenizer)
    finally:
        report(model, generation)
        _follow_up(model, generation, options)
    return 0


def _follow_up(model: Model, generation: Generation, options: argparse.Namespace) -> None:
    """Statistics and trace, as far as the generation came."""
    if options.stats:
        print_statistics(generation.statistics, generation.cost)
    if options.trace is not None:
        from specee.cli.trace import trace_page

        write_whole(options.trace, trace_page(generation, model.tokenizer, options.policy), "--trace")


def report(model: Model, generation: Generation, kept: int = 0) -> None:
    """Speed of a generation on stderr, so that stdout is the text alone.

    ``kept`` prompt tokens were in the cache already and were not computed.
    """
    sequence, timing = generation.sequences[0], generation.timing
    if generation.steps == 0:
        return
    later = generation.statistics.later_tokens
    computed = len(sequence.request.prompt) - kept
    lines = [f"prompt  {computed} tokens, {computed / timing.prompt:.1f} tokens/s"]
    if kept:
        lines[0] += f" ({kept} more kept from before)"
    if later > 0:
        speed = later / timing.decode
        lines.append(f"decode  {len(sequence.generated)} tokens, {speed:.1f} tokens/s")
        if used := bandwidth.share(model.backend, speed, generation.statistics.acceptance.drafted):
            lines.append(f"        {used}")
    print("\n" + "\n".join(lines), file=sys.stderr)
