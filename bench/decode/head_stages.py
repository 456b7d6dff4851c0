"""What the two stages of the head's argmax save: decoding with them, and with the whole head.

    python -m bench.decode.head_stages [--weights packed]... [--policy NAME]... [--tokens 96]

Both continue each prompt greedily, A B B A in a turn, in one process; texts do not end early, and have to be
the same. A whole head reads all of its bytes for each pass; two stages read its coarse copy, and of the head
what comes into question.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import specee
from specee.errors import ConfigurationError

from .. import options as common
from .. import prompts
from ..progress import progress
from ..spread import ratio, spread
from .contenders import WEIGHTS
from .lossless import PLAIN


def once(model: Any, prompt: list[int], policy: str, tokens: int, *, stages: bool) -> tuple[list[int], float]:
    """The text and tokens a second behind the prompt."""
    model.backend._engine.use_two_stages(stages)
    generation = model.start(prompt, policy=policy, max_new_tokens=tokens, do_sample=False, eos_token_id=[])
    text = [token for step in generation for token in step[0]]
    return text, (len(text) - 1) / generation.timing.decode


def measure_policy(model: Any, texts: Sequence[list[int]], policy: str, tokens: int) -> dict[str, Any]:
    """Raises AssertionError if a text differs."""
    native = model.backend._engine
    rates: dict[bool, list[float]] = {True: [], False: []}
    once(model, texts[0], policy, 8, stages=True)  # not counted
    before = native.two_stages
    for prompt in progress(texts, "prompt"):
        found: dict[bool, list[float]] = {True: [], False: []}
        seen = set()
        for stages in (True, False, False, True):
            text, rate = once(model, prompt, policy, tokens, stages=stages)
            found[stages].append(rate)
            seen.add(tuple(text))
        assert len(seen) == 1, "two stages gave another text than the whole head"
        for stages, pair in found.items():
            rates[stages].append(2 / sum([1 / rate for rate in pair]))
    calls, reread = [after - earlier for after, earlier in zip(native.two_stages, before, strict=True)]
    return {
        "whole": spread(rates[False]),
        "two_stages": spread(rates[True]),
        "ratio": ratio(rates[True], rates[False]),
        "all": sum([1 / rate for rate in rates[False]]) / sum([1 / rate for rate in rates[True]]),
        "calls": calls,
        "head_read_again": reread / max(1, calls),
    }


def measure(
    weights: Sequence[str],
    policies: Sequence[str],
    *,
    model: str | None = None,
    threads: int,
    tokens: int = 96,
    files: list[Path] | None = None,
    every: int = 1,
) -> dict[str, Any]:
    """Raises ConfigurationError for fewer tokens than two, and for a head without a coarse copy."""
    if tokens < 2:
        raise ConfigurationError(f"tokens={tokens}: the first is the prompt's, so there have to be 2 or more")
    parts: dict[str, Any] = {}
    for kind in weights:
        loaded = specee.load(model, weights=kind, backend="cpu", threads=threads)  # type: ignore[arg-type]
        native: Any = loaded.backend._engine  # type: ignore[attr-defined]
        begin = time.perf_counter()
        native.use_two_stages(True)
        made = time.perf_counter() - begin
        read = loaded.backend.bytes_by_step["head"]  # type: ignore[attr-defined]
        native.use_two_stages(False)
        whole = loaded.backend.bytes_by_step["head"]  # type: ignore[attr-defined]
        if read == whole:
            raise ConfigurationError(
                f"weights={kind}: the head has no coarse copy, as none would be clearly smaller"
            )
        texts = prompts.encoded(loaded.tokenizer, files)[::every]
        parts[kind] = {
            "head_bytes": whole,
            "coarse_bytes": read,
            "made_s": made,
            "step_bytes": loaded.backend.step_bytes,  # type: ignore[attr-defined]
            "prompts": len(texts),
            "policies": {policy: measure_policy(loaded, texts, policy, tokens) for policy in policies},
        }
    return {
        "what": "greedy decoding, batch 1: the head's argmax in two stages beside the whole head",
        "threads": threads,
        "new_tokens": tokens,
        "prompt_files": [path.name for path in files or []],
        "weights": parts,
    }


def main() -> None:
    """Run and save."""
    parser = common.parser(__doc__, prompts=True)
    parser.add_argument("--weights", action="append", choices=WEIGHTS, help="default: packed and bf16")
    parser.add_argument("--policy", action="append", help=f"default: {PLAIN} and auto")
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--every", type=int, default=1, help="of so many prompts one")
    options = common.parse(parser)
    result = measure(
        options.weights or ["packed", "bf16"],
        options.policy or [PLAIN, "auto"],
        model=options.model,
        threads=options.threads,
        tokens=options.tokens,
        files=options.prompts,
        every=options.every,
    )
    common.finish(options, "head-stages", result)


if __name__ == "__main__":
    main()
