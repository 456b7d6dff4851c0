"""What the tests of drawn tokens share: a tree of rows, options, and how likely a token is."""

from __future__ import annotations

import numpy as np

from specee.backends.protocol import Backend, SequenceState
from specee.types import Sampling

PENALISED = [
    Sampling(temperature, top_k, top_p, seed, min_p, penalty)
    for temperature, top_k, top_p, min_p in ((0.0, 0, 1.0, 0.0), (1.0, 0, 1.0, 0.0), (2.0, 9, 0.9, 0.05))
    for seed in range(4)
    for penalty in (1.0, 1.3, 5.0, 0.4)
]

# Bound on the relative error of a confidence where logits are within 30 of each other, u = 2^-24: an exponent
# is rounded (30 u), its exponential is within 2 ulp (4 u), sixteen chains add at most 256 terms and a tree
# the chains (20 u), the result is rounded (u). What is added up beyond that is in double.
CONFIDENCE = (30 + 4 + 20 + 1) * 2.0**-24


def confidence(logits: np.ndarray, token: int) -> float:
    """The token's share of the softmax, in double."""
    exact = logits.astype(np.float64)
    return float(1.0 / np.exp(exact - exact[token]).sum())


def text_of(sequence: SequenceState, slot: int) -> list[int]:
    """Tokens up to and with the row, by its parents."""
    tokens = []
    while slot >= 0:
        row = sequence.row(slot)
        tokens.append(row.token)
        slot = row.parent
    return tokens[::-1]


def with_branches(backend: Backend) -> tuple[SequenceState, list[int]]:
    """A text that repeats itself and a tree on top of it, at unequal depths; and slots of both, mixed.

    The text is of half the vocabulary, so that a penalty on its tokens matters.
    """
    sequence = backend.sequence(72, poison=True)
    text = np.random.default_rng(5).integers(0, backend.config.vocab_size, 60).tolist()
    backend.advance([(sequence, sequence.append(text))], backend.config.num_layers)
    slots = sequence.branch([50, 51, text[0], 52, 53], [-1, -1, 0, 0, 1])
    backend.advance([(sequence, [31, 59, slots[2], slots[4]])], backend.config.num_layers - 1)
    backend.advance([(sequence, [31, 59, slots[3]])], backend.config.num_layers)
    return sequence, [slots[3], 31, slots[4], 59, slots[2], slots[0]]
