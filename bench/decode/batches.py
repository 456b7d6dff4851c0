"""Several prompts continued together, with noise that is each prompt's own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

# Everything that shapes a token is said, so that the checkpoint's own defaults have no part in it.
MODES: dict[str, dict[str, Any]] = {
    "greedy": {"do_sample": False, "repetition_penalty": 1.0},
    "sampled": {
        "do_sample": True,
        "temperature": 0.8,
        "top_p": 0.95,
        "top_k": 0,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
    },
}


def chunks(begin: int, end: int, size: int) -> Iterator[range]:
    """Indices from ``begin`` to ``end`` in runs of ``size``, the last one shorter."""
    for first in range(begin, end, size):
        yield range(first, min(first + size, end))


def padded(rows: Sequence[Sequence[int]]) -> tuple[list[list[int]], list[list[int]]]:
    """Ids and attention mask of prompts of any lengths, padded on the left."""
    width = max(map(len, rows))
    ids = [[0] * (width - len(row)) + list(row) for row in rows]
    mask = [[0] * (width - len(row)) + [1] * len(row) for row in rows]
    return ids, mask


def continued(
    model: Any, texts: Sequence[Sequence[int]], chosen: range, mode: str, policy: str, tokens: int
) -> Any:
    """The GenerationResult of the ``chosen`` prompts; a sampled one has its index in ``texts`` as its seed.

    Texts end where the checkpoint says.
    """
    ids, mask = padded([texts[index] for index in chosen])
    seeds = {"seed": list(chosen)} if MODES[mode]["do_sample"] else {}
    return model.generate(
        ids,
        mask,
        max_new_tokens=tokens,
        pad_token_id=0,
        policy=policy,
        return_dict=True,
        **MODES[mode],
        **seeds,
    )
