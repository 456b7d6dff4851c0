"""``specee generate --compare``: ours and plain transformers in turns, on the same weights and prompt."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from specee.cli import bandwidth
from specee.cli.common import print_stream
from specee.engine import Generation
from specee.integrations.stopwatch import Stopwatch
from specee.integrations.transformers_model import to_transformers
from specee.model import Model
from specee.options import Options
from specee.policies import make_policy
from specee.stopping import StopStrings

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ROUNDS = 2
PLAIN = "autoregressive"


@dataclass(frozen=True)
class Run:
    """New tokens, and tokens per second of prompt and decoding."""

    tokens: list[int]
    prompt: float
    decode: float


def compare(model: Model, prompt: list[int], given: dict[str, Any], policy: str) -> Generation:
    """Print our text, then both speeds and where the texts part; returns our generation."""
    theirs_model = to_transformers(model.checkpoint, model.backend.weights)
    options = model.options(1, len(prompt), **given)
    generations: list[Generation] = []
    ours: list[Run] = []
    plain: list[Run] = []
    theirs: list[Run] = []
    speculates = make_policy(policy).name != PLAIN
    for turn in range(ROUNDS):
        generations.append(_run_ours(model, prompt, given, policy, show=turn == 0))
        ours.append(_measured(generations[-1]))
        if speculates:
            plain.append(_measured(_run_ours(model, prompt, given, PLAIN, show=False)))
        theirs.append(_run_theirs(theirs_model, prompt, options, model))
    best_ours = max(ours, key=_decode)
    best_theirs = max(theirs, key=_decode)
    lines = ["", f"best of {ROUNDS}      prompt tokens/s  decode tokens/s", _line("specee", ours)]
    if plain:
        lines.append(_line("specee, plain", plain))
    lines.append(_line("transformers", theirs))
    if plain and best_ours.decode:
        lines.append(_gain(best_ours, max(plain, key=_decode), greedy=options.temperature == 0))
    if best_theirs.decode and best_ours.decode:
        lines.append(
            f"decoding ratio {best_ours.decode / best_theirs.decode:.2f}x, weights {model.backend.weights}"
        )
    drafted = generations[0].statistics.acceptance.drafted
    if used := bandwidth.share(model.backend, best_ours.decode, drafted):
        lines.append(f"specee reads   {used}")
    lines.append(_agreement(model, ours[0].tokens, theirs[0].tokens, greedy=options.temperature == 0))
    print("\n".join(lines), file=sys.stderr)
    return generations[0]


def _decode(run: Run) -> float:
    return run.decode


def _line(name: str, runs: list[Run]) -> str:
    return f"{name:<15}{max(run.prompt for run in runs):15.1f}  {max(map(_decode, runs)):15.1f}"


def _gain(ours: Run, plain: Run, *, greedy: bool) -> str:
    """Of the policy over plain decoding by the same engine; the text has to be the same."""
    ratio = f"{ours.decode / plain.decode:.2f}x" if plain.decode else "none"
    if not greedy:
        return f"policy         {ratio} plain decoding"
    same = "the same" if ours.tokens == plain.tokens else "ANOTHER"
    return f"policy         {ratio} plain decoding, {same} text"


def _run_ours(
    model: Model, prompt: list[int], given: dict[str, Any], policy: str, *, show: bool
) -> Generation:
    generation = model.start(prompt, policy=policy, **given)
    if show:
        print_stream(generation, model.tokenizer)
    for _ in generation:
        pass
    return generation


def _measured(generation: Generation) -> Run:
    sequence, timing = generation.sequences[0], generation.timing
    later = generation.statistics.later_tokens
    return Run(
        sequence.generated,
        len(sequence.request.prompt) / timing.prompt,
        later / timing.decode if timing.decode else 0.0,
    )


def _run_theirs(theirs: PreTrainedModel, prompt: list[int], options: Options, model: Model) -> Run:
    import torch

    threads = getattr(model.backend, "threads", None)
    if threads is not None:
        torch.set_num_threads(threads)
    ids = torch.tensor([prompt])
    ends = list(options.eos) or None
    watch = Stopwatch()
    with torch.inference_mode():
        theirs.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=options.max_new_tokens,
            streamer=watch, eos_token_id=ends, pad_token_id=ends[0] if ends else 0,
            repetition_penalty=options.repetition_penalty, **_sampling(options),
            **_stopping(options, len(prompt), model),
        )  # fmt: skip
    return Run(watch.tokens, len(prompt) / watch.first_token_s, watch.tokens_per_s)


def _sampling(options: Options) -> dict[str, Any]:
    """Ours in their words."""
    if not options.temperature:
        return {"do_sample": False}
    return {
        "do_sample": True,
        "temperature": options.temperature,
        "top_k": options.top_k,
        "top_p": options.top_p,
        "min_p": options.min_p or None,
    }


def _stopping(options: Options, width: int, model: Model) -> dict[str, Any]:
    """Stop strings by our rule: theirs needs a tokenizer of theirs, and looks at the prompt too."""
    if not options.stop_strings:
        return {}
    import torch
    from transformers import StoppingCriteriaList

    stop = StopStrings(options.stop_strings, model.tokenizer.decode)
    return {
        "stopping_criteria": StoppingCriteriaList(
            [lambda ids, scores, **_: torch.tensor([stop(row.tolist()[width:]) for row in ids])]
        )
    }


def _agreement(model: Model, ours: list[int], theirs: list[int], *, greedy: bool) -> str:
    if not greedy:
        return "texts          not compared: the two sample with different noise"
    same = first_difference(ours, theirs)
    if same is None:
        return f"texts          equal, {len(ours)} tokens"
    parts = [model.tokenizer.decode(tokens[same : same + 8]) for tokens in (ours, theirs)]
    return f"texts          part at token {same + 1}: specee {parts[0]!r}, transformers {parts[1]!r}"


def first_difference(ours: list[int], theirs: list[int]) -> int | None:
    """Index of the first token that only one has or that differs, None if all are equal."""
    if ours == theirs:
        return None
    pairs = enumerate(zip(ours, theirs, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(ours), len(theirs)))
