"""What a round with early exits is told, and tells: csrc/include/specee/exit_record.h in numpy.

A test holds both together.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from specee.cuda.record import LAYER_WORDS, ROUND_SEQUENCES, layer_mask
from specee.errors import ConfigurationError

EXIT_ROWS = 17
EXIT_CANDIDATES = 16

EXIT_SEQUENCE_PLAN = np.dtype(
    [
        *(("seed", "<u8"), ("position", "<i8"), ("temperature", "<f8"), ("threshold", "<f8")),
        *(("checked", "<u8", (LAYER_WORDS,)), ("rows", "<i4"), ("unused", "<i4")),
        *(("tokens", "<i4", (EXIT_ROWS,)), ("begins", "<i4", (EXIT_ROWS,))),
        ("candidates", "<i4", (EXIT_CANDIDATES,)),
    ]
)
EXIT_PLAN = np.dtype(
    [
        *(("sequences", "<i4"), ("unused", "<i4")),
        ("sequence", EXIT_SEQUENCE_PLAN, (ROUND_SEQUENCES,)),
    ]
)
EXIT_OUTCOME = np.dtype([("layer", "<i4"), ("token", "<i4"), ("chance", "<f4"), ("unused", "<i4")])
EXIT_RESULT = np.dtype(
    [*(("layers_run", "<i4"), ("heads_run", "<i4")), ("sequence", EXIT_OUTCOME, (ROUND_SEQUENCES,))]
)


@dataclass(frozen=True)
class ExitPlan:
    """A sequence's part of a plan.

    ``tokens`` of its rows that are not complete, which are neighbours: the newest one, at ``position``, is
    the last. ``begins``: how many layers each has done, never more than the one before it. The predictor is
    asked behind ``checked`` layers, counted from 0, about ``candidates``; a chance above ``threshold`` lets
    the row go. ``temperature`` 0 is greedy.
    """

    tokens: Seq[int]
    begins: Seq[int]
    position: int
    checked: Seq[int] = ()
    candidates: Seq[int] = ()
    threshold: float = 1.0
    temperature: float = 0.0
    seed: int = 0


class LeftAt(NamedTuple):
    """Layers that a sequence's newest row had done when it left, the token after it, and its chance."""

    layer: int
    token: int
    chance: float


class ExitRun(NamedTuple):
    """How many layers ran, and how often the head; and what came of each sequence."""

    layers: int
    heads: int
    left: tuple[LeftAt, ...]


def encode_exits(plans: Seq[ExitPlan]) -> bytes:
    """A plan's record, as far as there are sequences. Raises ConfigurationError."""
    if not 1 <= len(plans) <= ROUND_SEQUENCES:
        raise ConfigurationError(f"{len(plans)} sequences in a round: allowed are 1..{ROUND_SEQUENCES}")
    record = np.zeros((), EXIT_PLAN)
    record["sequences"] = len(plans)
    for place, plan in zip(record["sequence"], plans, strict=False):
        rows, begins = len(plan.tokens), list(plan.begins)
        if not 1 <= rows <= EXIT_ROWS or rows > plan.position + 1:
            raise ConfigurationError(
                f"{rows} rows up to position {plan.position}: allowed are 1..{EXIT_ROWS}, from position 0 "
                "on; complete older rows first"
            )
        if len(begins) != rows or begins != sorted(begins, reverse=True) or begins[-1] != 0:
            raise ConfigurationError(
                f"rows that begin at layers {begins} for {rows} tokens: give one for each, none above the "
                "one before it; the newest row begins at 0"
            )
        if len(plan.candidates) > EXIT_CANDIDATES:
            raise ConfigurationError(
                f"{len(plan.candidates)} candidates of a row: allowed are up to {EXIT_CANDIDATES}; give as "
                "many as the predictors take"
            )
        for name in ("seed", "position", "temperature", "threshold"):
            place[name] = getattr(plan, name)
        place["checked"] = layer_mask("checked layers", plan.checked)
        place["rows"] = rows
        place["tokens"][:rows], place["begins"][:rows] = plan.tokens, begins
        place["candidates"][: len(plan.candidates)] = plan.candidates
    used = EXIT_PLAN.itemsize - (ROUND_SEQUENCES - len(plans)) * EXIT_SEQUENCE_PLAN.itemsize
    return record.tobytes()[:used]


def decode_exits(data: bytes, sequences: int) -> ExitRun:
    """What the first ``sequences`` sequences have of a round."""
    record = np.frombuffer(data, EXIT_RESULT, 1)[0]
    left = [
        LeftAt(int(one["layer"]), int(one["token"]), float(one["chance"]))
        for one in record["sequence"][:sequences]
    ]
    return ExitRun(int(record["layers_run"]), int(record["heads_run"]), tuple(left))
