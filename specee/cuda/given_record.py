"""What a round is told whose drafts are there already: csrc/include/specee/given_record.h in numpy.

A test holds both together.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq

import numpy as np

from specee.cuda.record import ROUND_SEQUENCES, ROUND_TOKENS
from specee.errors import ConfigurationError

GIVEN_DRAFTS = np.dtype([("count", "<i4"), ("tokens", "<i4", (ROUND_TOKENS,))])
GIVEN_PLAN = np.dtype([("sequence", GIVEN_DRAFTS, (ROUND_SEQUENCES,))])


def encode_given(drafts: Seq[Seq[int]]) -> bytes:
    """The record of each sequence's drafts, as far as there are sequences. Raises ConfigurationError."""
    if not 1 <= len(drafts) <= ROUND_SEQUENCES:
        raise ConfigurationError(f"{len(drafts)} sequences in a round: allowed are 1..{ROUND_SEQUENCES}")
    record = np.zeros(len(drafts), GIVEN_DRAFTS)
    for place, own in zip(record, drafts, strict=True):
        if len(own) >= ROUND_TOKENS:
            raise ConfigurationError(f"{len(own)} drafts in a round: allowed are 0..{ROUND_TOKENS - 1}")
        place["count"] = len(own)
        place["tokens"][: len(own)] = own
    return record.tobytes()
