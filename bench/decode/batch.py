"""Tokens per second of several sequences decoded together, beside one.

    python -m bench.decode.batch [--weights packed]... [--rounds 5] [--tokens 64]

Batch sizes take turns; ratios are to the single sequence of the same round. Every sequence has a prompt of
the project's own, cut to the same length.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import specee

from .. import options as common
from .. import prompts
from ..progress import progress
from ..spread import ratio, spread
from .contenders import WEIGHTS

SIZES = (1, 2, 4, 8)
PROMPT_TOKENS = 32


def decode_rate(model: Any, rows: list[list[int]], tokens: int) -> float:
    """New tokens of all rows a second, the first of each aside."""
    result = model.generate(
        rows, max_new_tokens=tokens, do_sample=False, eos_token_id=[], pad_token_id=0,
        attention_mask=[[1] * len(row) for row in rows], return_dict=True,
    )  # fmt: skip
    rate: float = result.decode_tokens_per_second
    return rate


def measure(
    weights: Sequence[str],
    *,
    model: str | None = None,
    threads: int,
    rounds: int = 5,
    tokens: int = 64,
    files: list[Path] | None = None,
) -> dict[str, Any]:
    """Rates and ratios for every format of the weights."""
    found = {}
    for name in weights:
        loaded = specee.load(model, weights=name, backend="cpu", threads=threads)
        texts = [text for text in prompts.encoded(loaded.tokenizer, files) if len(text) >= PROMPT_TOKENS]
        rows = [texts[index % len(texts)][:PROMPT_TOKENS] for index in range(max(SIZES))]
        decode_rate(loaded, rows, 4)  # not counted
        rates: dict[int, list[float]] = {size: [] for size in SIZES}
        for turn in progress(range(rounds), "round"):
            for size in SIZES if turn % 2 == 0 else SIZES[::-1]:
                rates[size].append(decode_rate(loaded, rows[:size], tokens))
        found[loaded.backend.weights] = {
            str(size): {"decode_tokens_s": spread(rates[size]), "ratio": ratio(rates[size], rates[SIZES[0]])}
            for size in SIZES
        }
    return {
        "what": "greedy decoding of several sequences together",
        "threads": threads,
        "prompt_tokens": PROMPT_TOKENS,
        "new_tokens": tokens,
        "rounds": rounds,
        "weights": found,
    }


def main() -> None:
    """Run and save."""
    parser = common.parser(__doc__, prompts=True)
    parser.add_argument(
        "--weights", action="append", choices=WEIGHTS, help="may be given again; default: auto"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=64)
    options = common.parse(parser)
    result = measure(
        options.weights or ["auto"],
        model=options.model,
        threads=options.threads,
        rounds=options.rounds,
        tokens=options.tokens,
        files=options.prompts,
    )
    common.finish(options, "batch", result)


if __name__ == "__main__":
    main()
