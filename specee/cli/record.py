"""``specee record``: plain decoding that keeps what every layer says, as a trace for ``specee replay``."""

from __future__ import annotations

import argparse
import sys

from specee.cli.common import load_model
from specee.cli.output_file import check_writable, written
from specee.errors import ConfigurationError
from specee.prompt_file import read_prompts_file
from specee.replay import Trace, write_trace


def run(options: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    from specee.replay.record import recording

    for name in ("tokens", "limit"):
        if (number := getattr(options, name)) is not None and number < 1:
            raise ConfigurationError(f"--{name} {number}: allowed is 1 or more")
    listed = read_prompts_file(options.prompts) if options.prompts else []
    texts = [*options.prompt, *listed][: options.limit]
    if not texts:
        raise ConfigurationError("nothing to record: give prompts, or --prompts FILE with one or more lines")
    check_writable(options.output, "--output")
    model = load_model(options)
    prompts = [model.encode(text, raw=options.raw) for text in texts]
    eos = model.options(1, 1, max_new_tokens=options.tokens).eos
    latency = model.latency.table()
    found = []
    for text in recording(model.backend, prompts, options.tokens, eos=eos, kv_dtype=model.kv_dtype):
        found.append(text)
        print(f"text {len(found)} of {len(prompts)}: {text.generated} tokens", file=sys.stderr)
    trace = Trace(options.name or options.output.stem, model.config.num_layers, latency, tuple(found))
    with written(options.output, "--output"):
        write_trace(options.output, trace)
    print(f"wrote {options.output}: {trace.generated} tokens, {trace.layers} layers", file=sys.stderr)
    return 0
