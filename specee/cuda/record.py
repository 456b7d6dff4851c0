"""What a round is told, and what it tells: csrc/include/specee/round_record.h in numpy.

A test holds both together.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence as Seq
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from specee.errors import ConfigurationError

ROUND_LAYERS = 256
ROUND_SEQUENCES = 64
ROUND_TOKENS = 18
LAYER_WORDS = ROUND_LAYERS // 64

SEQUENCE_PLAN = np.dtype(
    [
        *(("seed", "<u8"), ("position", "<i8"), ("temperature", "<f8")),
        *(("floor", "<f4"), ("token", "<i4"), ("drafts", "<i4"), ("unused", "<i4")),
    ]
)
ROUND_PLAN = np.dtype(
    [
        ("layers", "<u8", (LAYER_WORDS,)),
        *(("sequences", "<i4"), ("unused", "<i4"), ("sequence", SEQUENCE_PLAN, (ROUND_SEQUENCES,))),
    ]
)
SEQUENCE_RESULT = np.dtype(
    [
        *((name, "<i4") for name in ("drafted", "accepted", "drafting", "count")),
        *((name, "<i4", (ROUND_TOKENS,)) for name in ("tokens", "drafts")),
        ("confidences", "<f4", (ROUND_TOKENS,)),
    ]
)
ROUND_RESULT = np.dtype(
    [("layers_run", "<i4"), ("unused", "<i4"), ("sequence", SEQUENCE_RESULT, (ROUND_SEQUENCES,))]
)


@dataclass(frozen=True)
class SequencePlan:
    """A sequence's part of a plan.

    ``token`` and ``position`` are its newest committed row's; ``drafts`` how many to make at most, none after
    one whose confidence is below ``floor``; ``temperature`` 0 is greedy.
    """

    token: int
    position: int
    drafts: int = 0
    floor: float = 0.0
    temperature: float = 0.0
    seed: int = 0


@dataclass(frozen=True)
class SequenceOutcome:
    """What a round did for a sequence.

    ``tokens``: accepted drafts and the one after them; a token below 0 is none
    (:mod:`specee.cuda.acceptance`). ``drafts`` that were made, with their ``confidences``, and how many of
    them were ``accepted``; ``undrawn``: behind them there was no token to draw.
    """

    tokens: tuple[int, ...]
    drafts: tuple[int, ...]
    confidences: tuple[float, ...]
    accepted: int
    undrawn: bool = False

    @property
    def drafted(self) -> int:
        """How many drafts were made."""
        return len(self.drafts)


def encode(layers: Iterable[int], sequences: Seq[SequencePlan]) -> bytes:
    """A plan's record; ``layers``: those that run. Raises ConfigurationError."""
    record = np.zeros((), ROUND_PLAN)
    record["layers"] = layer_mask("layers", layers)
    if not 1 <= len(sequences) <= ROUND_SEQUENCES:
        raise ConfigurationError(f"{len(sequences)} sequences in a round: allowed are 1..{ROUND_SEQUENCES}")
    record["sequences"] = len(sequences)
    for place, plan in zip(record["sequence"], sequences, strict=False):
        if not 0 <= plan.drafts < ROUND_TOKENS:
            raise ConfigurationError(f"{plan.drafts} drafts in a round: allowed are 0..{ROUND_TOKENS - 1}")
        for field in fields(plan):
            place[field.name] = getattr(plan, field.name)
    return record.tobytes()


def decode(data: bytes, sequences: int) -> tuple[int, tuple[SequenceOutcome, ...]]:
    """How many layers ran, and what the first ``sequences`` sequences have of the round."""
    record = np.frombuffer(data, ROUND_RESULT, 1)[0]
    return int(record["layers_run"]), tuple(_outcome(one) for one in record["sequence"][:sequences])


def _outcome(one: Any) -> SequenceOutcome:
    drafted = int(one["drafted"])
    return SequenceOutcome(
        tuple(one["tokens"][: one["count"]].tolist()),
        tuple(one["drafts"][:drafted].tolist()),
        tuple(one["confidences"][:drafted].tolist()),
        int(one["accepted"]),
        bool(one["drafting"] < 0),
    )


def layer_mask(what: str, layers: Iterable[int]) -> npt.NDArray[np.uint64]:
    """A record's bits of ``layers``. Raises ConfigurationError, which says what they are."""
    words = [0] * LAYER_WORDS
    for layer in layers:
        if not 0 <= layer < ROUND_LAYERS:
            raise ConfigurationError(f"{what}: {layer}; allowed are 0..{ROUND_LAYERS - 1}")
        words[layer // 64] |= 1 << layer % 64
    return np.array(words, np.uint64)
