"""Exit predictors of the C++ backend."""

from __future__ import annotations

from collections.abc import Sequence as Seq

from specee import _cpu
from specee.backends.exit_parts import checked_exits
from specee.backends.own import own
from specee.backends.protocol import ExitRows, FittedExits
from specee.models.exit_parts import ExitParts
from specee.types import ModelConfig


class CpuExits:
    """See :meth:`.Backend.exit_predictors`."""

    def __init__(self, engine: _cpu.Engine, parts: ExitParts, config: ModelConfig) -> None:
        checked = checked_exits(parts, config)
        self.layers, self.candidates = checked.layers, checked.candidates
        self.native = engine.exit_predictors(checked.candidates, checked.first.shape[1])
        for index, layer in enumerate(checked.layers):
            self.native.set(
                layer,
                checked.first[index],
                checked.first_bias[index],
                checked.second[index],
                float(checked.second_bias[index]),
            )


class CpuExitRows:
    """See :meth:`.Backend.exit_rows`."""

    def __init__(self, engine: _cpu.Engine, predictors: FittedExits, candidates: Seq[Seq[int]]) -> None:
        self.native = engine.exit_rows(native_exits(predictors), candidates)


def native_exits(predictors: FittedExits) -> _cpu.ExitPredictors:
    """As the engine takes them. Raises ConfigurationError for those of another backend."""
    return own(CpuExits, predictors, "exit predictors", "this backend's exit_predictors()").native


def native_rows(rows: ExitRows) -> _cpu.ExitRows:
    """The same for rows to ask about."""
    return own(CpuExitRows, rows, "rows to ask about", "this backend's exit_rows()").native
