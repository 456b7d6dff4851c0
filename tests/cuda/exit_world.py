"""Plans of rounds in which rows may leave, random ones, begun on a device; and their arrays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from specee.cuda.acceptance import Draws
from specee.cuda.exit_record import EXIT_PLAN, EXIT_RESULT, ExitPlan, ExitRun, decode_exits, encode_exits
from specee.cuda.exits import ExitState, begin_exits
from specee.cuda.round import ChainRows
from tests.cuda.devices import Device

SIZES = [(1, 1, 1, 1), (5, 3, 8, 4), (256, 64, 1, 16), (80, 3, 17, 3)]
"""Layers, sequences, rows of each, candidates."""


def exit_state(
    layers: int, sequences: int, each: int, count: int, put: Callable[[np.ndarray], Any]
) -> ExitState:
    """Arrays full of what no kernel should read."""

    def full(*shape: int, dtype: Any = np.int32, value: float = -7) -> Any:
        return put(np.full(shape, value, dtype))

    rows = sequences * each
    return ExitState(
        plan=full(EXIT_PLAN.itemsize, dtype=np.uint8, value=255),
        result=full(EXIT_RESULT.itemsize, dtype=np.uint8, value=255),
        runs=full(layers),
        checks=full(layers),
        enters=full(layers),
        asked=full(layers, sequences),
        flags=full(2),
        rows=ChainRows(*(full(rows) for _ in range(5))),
        begins=full(rows),
        reach=full(rows),
        draws=Draws(
            full(sequences, dtype=np.float64, value=np.nan),
            full(sequences, dtype=np.uint64, value=7),
            full(sequences, dtype=np.int64),
        ),
        willing=full(sequences),
        left=full(sequences),
        candidates=full(sequences, count),
        probabilities=full(sequences, count, dtype=np.float32, value=np.nan),
    )


@dataclass
class ExitWorld:
    """A random plan for all sequences that there is room for."""

    device: Device
    rng: np.random.Generator
    layers: int
    sequences: int
    each: int
    count: int
    plans: list[ExitPlan] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.plans = [self._plan() for _ in range(self.sequences)]
        self.state = exit_state(self.layers, self.sequences, self.each, self.count, self.device.put)
        record = np.full(EXIT_PLAN.itemsize, 255, np.uint8)  # what is behind the sequences' is not sent
        data = np.frombuffer(encode_exits(self.plans), np.uint8)
        record[: len(data)] = data
        self.state.plan[...] = self.device.put(record)
        begin_exits(self.device.launcher, self.state)

    def _plan(self) -> ExitPlan:
        rng, rows = self.rng, int(self.rng.integers(1, self.each + 1))
        begins = sorted(rng.integers(0, self.layers, rows).tolist(), reverse=True)
        return ExitPlan(
            tokens=rng.integers(0, 1000, rows).tolist(),
            begins=[*begins[:-1], 0],
            position=int(rng.integers(rows - 1, 10**6)),
            checked=np.flatnonzero(rng.random(self.layers) < 0.6).tolist(),
            candidates=rng.permutation(40)[: self.count].tolist(),
            threshold=float(rng.random()),
            temperature=float(rng.random()),
            seed=int(rng.integers(2**63)) * 2 + 1,
        )

    def get(self, array: Any) -> list[Any]:
        found: list[Any] = self.device.get(array).tolist()
        return found

    def result(self) -> ExitRun:
        return decode_exits(self.device.get(self.state.result).tobytes(), self.sequences)
