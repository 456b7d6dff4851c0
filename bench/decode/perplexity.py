"""Perplexity of the formats of the weights beside transformers in fp32 with the dequantised weights.

    python -m bench.decode.perplexity [--weights packed]... [--tokens 20000] [--window 512]

The text is Python's own documentation of its topics (``pydoc_data``), which is on every machine: English
prose with some code. It is read in windows that know nothing of each other; every token of a window but the
first is scored. Exits with 1 if packed weights are over 0.5 % from transformers.
"""

from __future__ import annotations

import hashlib
import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

import specee
from specee.models.checkpoint import Checkpoint, open_checkpoint

from .. import options as common
from ..progress import progress
from .contenders import WEIGHTS

LIMIT = 0.005
_CHUNK = 64  # rows whose logits are held at once
REFERENCE = "transformers fp32"
_CHARACTERS_A_TOKEN = 12  # more than any tokenizer needs on prose


def text() -> str:
    """The topics in the order of their names."""
    from pydoc_data.topics import topics

    return "\n\n".join(topics[name] for name in sorted(topics))


def windows(tokens: Sequence[int], size: int) -> list[list[int]]:
    """Consecutive pieces of ``size``; a rest that is shorter is left out."""
    return [list(tokens[begin : begin + size]) for begin in range(0, len(tokens) - size + 1, size)]


def surprise(logits: np.ndarray[Any, Any], targets: Sequence[int]) -> float:
    """Sum of -log p of the targets; ``logits`` is (targets, vocab)."""
    greatest = logits.max(axis=1, keepdims=True)
    normaliser = np.log(np.exp(logits - greatest).sum(axis=1, dtype=np.float64)) + greatest[:, 0]
    return float((normaliser - logits[np.arange(len(targets)), list(targets)]).sum())


def ours(model: specee.Model) -> Callable[[list[int]], float]:
    """Surprise of one window, with a backend of ours."""
    backend: Any = model.backend

    def score(window: list[int]) -> float:
        sequence = backend.sequence(len(window), model.kv_dtype)
        slots = list(sequence.append(window))[:-1]
        backend.advance([(sequence, slots)], backend.config.num_layers)
        chunks = [slice(begin, begin + _CHUNK) for begin in range(0, len(slots), _CHUNK)]
        return sum(surprise(backend.logits([(sequence, slots[c])]), window[1:][c]) for c in chunks)

    return score


def theirs(checkpoint: Checkpoint, threads: int) -> Callable[[list[int]], float]:
    """Surprise of one window, with transformers and the weights as fp32."""
    import torch

    from specee.integrations.transformers_model import to_transformers

    torch.set_num_threads(threads)
    model: Any = to_transformers(checkpoint, "fp32")

    def score(window: list[int]) -> float:
        with torch.inference_mode():
            return surprise(model(torch.tensor([window])).logits[0, :-1].numpy(), window[1:])

    return score


def perplexity(score: Callable[[list[int]], float], pieces: Iterable[list[int]]) -> float:
    """exp of the mean surprise a scored token."""
    total, count = 0.0, 0
    for window in pieces:
        total += score(window)
        count += len(window) - 1
    return math.exp(total / count)


def measure(
    weights: Sequence[str],
    *,
    model: str | None = None,
    threads: int,
    tokens: int = 20_000,
    window: int = 512,
    with_reference: bool = True,
) -> dict[str, Any]:
    """Perplexity of each format, and how far it is from the reference's."""
    checkpoint = open_checkpoint(model)
    if checkpoint.tokenizer is None:
        raise specee.ConfigurationError(f"{checkpoint.source} has no tokenizer: perplexity is that of a text")
    # Whole windows, and at least the number asked for.
    count = -(-tokens // window) * window
    ids = checkpoint.tokenizer.encode(text()[: _CHARACTERS_A_TOKEN * count])[:count]
    pieces = windows(ids, window)
    found: dict[str, float] = {}
    for name in weights:
        loaded = specee.load(model, weights=name, backend="cpu", threads=threads)
        found[loaded.backend.weights] = perplexity(ours(loaded), progress(pieces, f"{name} window"))
    if with_reference:
        found[REFERENCE] = perplexity(theirs(checkpoint, threads), progress(pieces, "fp32 window"))
    result: dict[str, Any] = {
        "what": "perplexity of Python's documentation",
        "tokens": len(pieces) * window,
        "window": window,
        "text_sha256": hashlib.sha256(repr(ids).encode()).hexdigest(),
        "perplexity": found,
    }
    if with_reference:
        base = found[REFERENCE]
        result["difference"] = {name: value / base - 1 for name, value in found.items() if name != REFERENCE}
    return result


def check(difference: Mapping[str, float]) -> None:
    """Exit with 1 if packed weights, which only our own rounding of inputs changes, are far from fp32."""
    if abs(difference.get("packed", 0.0)) > LIMIT:
        sys.exit(f"packed weights are over {LIMIT:.1%} from transformers fp32")


def main() -> None:
    """Run and save."""
    parser = common.parser(__doc__)
    parser.add_argument(
        "--weights", action="append", choices=WEIGHTS, help="may be given again; default: auto"
    )
    parser.add_argument("--tokens", type=int, default=20_000)
    parser.add_argument("--window", type=int, default=512)
    options = common.parse(parser)
    result = measure(
        options.weights or ["auto"],
        model=options.model,
        threads=options.threads,
        tokens=options.tokens,
        window=options.window,
    )
    common.finish(options, "perplexity", result)
    check(result.get("difference", {}))


if __name__ == "__main__":
    main()
