"""The draft vocabulary: tokens that drafts may have, as many as pay for the bytes that their rows take."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from specee.fitting.corpus import Text
from specee.policies import Latency
from specee.policies.objective import Objective

_SIZES = (2048, 4096, 6144, 8192, 12288, 16384, 24576, 32768)
_RIGHT = 0.5  # of drafts that could be right: what a block comes to, more or less


class Vocabulary(NamedTuple):
    """``ids``, ascending, that cover a share of the tokens that the model writes; ``value``: see below."""

    ids: npt.NDArray[np.int64]
    coverage: float
    value: float


def counted(texts: Iterable[Text], vocab_size: int) -> npt.NDArray[np.int64]:
    """How often the model wrote each token: (vocab_size,)."""
    total = np.zeros(vocab_size, np.int64)
    for text in texts:
        total += np.bincount(text.tokens[text.begin :], minlength=vocab_size)
    return total


def choose(
    fitted: npt.NDArray[np.int64],
    held_out: npt.NDArray[np.int64],
    latency: Latency,
    layers: int,
    block_share: float,
) -> Vocabulary:
    """The most frequent tokens, as many as make drafting worth most.

    Tokens are ranked by ``fitted`` counts; what they cover is counted in texts ``held_out``. A draft reads
    the block (``block_share`` of the head's bytes) and the vocabulary's rows, and may be right if the token
    is covered. ``value``: expected tokens a second over plain decoding, if half of those were right.
    """
    objective = Objective(latency, layers)
    order = np.argsort(-fitted, kind="stable")
    found = []
    for size in sorted({min(size, len(order)) for size in (*_SIZES, len(order))}):
        ids = np.sort(order[:size]).astype(np.int64)
        coverage = float(held_out[ids].sum() / max(held_out.sum(), 1))
        share = block_share + size / len(order)
        found.append(Vocabulary(ids, coverage, objective.best(0, share, _RIGHT * coverage).value))
    return max(found, key=lambda vocabulary: vocabulary.value)
