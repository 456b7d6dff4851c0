"""The draft vocabulary: tokens that drafts may have, as many as pay for the bytes that their rows take."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from specee.errors import CheckpointError
from specee.fitting.corpus import Text
from specee.policies import Latency
from specee.policies.chain_cost import ChainCost
from specee.policies.objective import Objective
from specee.whole_file import write_whole

Tokens = npt.NDArray[np.int64]

_SIZES = (2048, 4096, 6144, 8192, 12288, 16384, 24576, 32768)
_RIGHT = 0.5  # of drafts that could be right: what a block comes to, more or less


class Vocabulary(NamedTuple):
    """``ids``, ascending, that cover a share of the tokens that the model writes."""

    ids: Tokens
    coverage: float


class Shares(NamedTuple):
    """Bytes that a draft reads over those of the model's head: of the block, and of each row of its head."""

    block: float
    row: float


def counted(texts: Iterable[Text], vocab_size: int) -> Tokens:
    """How often the model wrote each token: (vocab_size,)."""
    total = np.zeros(vocab_size, np.int64)
    for text in texts:
        total += np.bincount(text.tokens[text.begin :], minlength=vocab_size)
    return total


def choose(fitted: Tokens, held_out: Tokens, latency: Latency, layers: int, shares: Shares) -> Vocabulary:
    """The most frequent tokens, as many as make drafting worth most.

    Tokens are ranked by ``fitted`` counts; what they cover is counted in texts ``held_out``. A draft may be
    right if the token is covered: worth is that of chains half of whose drafts are, of those that could be.
    """
    objective = Objective(latency, layers)
    order = np.argsort(-fitted, kind="stable")
    found: list[tuple[float, Vocabulary]] = []
    for size in sorted({min(size, len(order)) for size in (*_SIZES, len(order))}):
        vocabulary = of_ids(order[:size], held_out)
        cost = ChainCost(shares.block + size * shares.row)
        cost.begin(latency)
        found.append((_worth(cost.times(objective).seconds, vocabulary), vocabulary))
    return max(found, key=lambda one: one[0])[1]


def _worth(rounds: Sequence[float], vocabulary: Vocabulary) -> float:
    """Tokens a second at the best length; what policies plan with is rounded, and sizes differ by less."""
    rate = _RIGHT * vocabulary.coverage
    tokens = np.cumsum(rate ** np.arange(len(rounds)))
    return float((tokens / rounds).max())


def of_ids(ids: Tokens, held_out: Tokens) -> Vocabulary:
    """These, in order, and what they cover."""
    return Vocabulary(np.sort(ids), float(held_out[ids].sum() / max(held_out.sum(), 1)))


def write(path: Path, ids: Tokens) -> None:
    """Keep a choice for a run that goes on. Raises OSError."""
    content = io.BytesIO()
    np.save(content, ids)
    write_whole(path, content.getvalue())


def read(path: Path) -> Tokens:
    """What :func:`write` kept. Raises CheckpointError."""
    try:
        ids: Tokens = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise CheckpointError(f"{path}: no complete draft vocabulary ({error}). Delete it.") from error
    return ids
