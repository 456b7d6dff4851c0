"""What a round is told in which a drafter block drafts: csrc/include/specee/block_record.h in numpy.

A test holds both together.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass

import numpy as np

from specee.cuda.record import ROUND_SEQUENCES, ROUND_TOKENS
from specee.errors import ConfigurationError

SEQUENCE_BLOCK = np.dtype([("place", "<i4"), ("rows", "<i4"), ("tokens", "<i4", (ROUND_TOKENS,))])
BLOCK_PLAN = np.dtype([("sequence", SEQUENCE_BLOCK, (ROUND_SEQUENCES,))])


@dataclass(frozen=True)
class UnseenText:
    """``tokens`` of a text that its block has not seen, and the first one's ``place`` in the column."""

    tokens: Seq[int]
    place: int


def encode_blocks(texts: Seq[UnseenText]) -> bytes:
    """The record, as far as there are sequences. Raises ConfigurationError."""
    if not 1 <= len(texts) <= ROUND_SEQUENCES:
        raise ConfigurationError(f"{len(texts)} sequences in a round: allowed are 1..{ROUND_SEQUENCES}")
    record = np.zeros(len(texts), SEQUENCE_BLOCK)
    for own, text in zip(record, texts, strict=True):
        count = len(text.tokens)
        if not 1 <= count <= ROUND_TOKENS:
            raise ConfigurationError(
                f"{count} tokens that a block has not seen: allowed are 1..{ROUND_TOKENS}; take older ones "
                "through it before the round"
            )
        own["place"], own["rows"] = text.place, count
        own["tokens"][:count] = text.tokens
    return record.tobytes()
