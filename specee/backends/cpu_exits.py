"""Exit predictors of the C++ backend."""

from __future__ import annotations

from specee import _cpu
from specee.backends.exit_parts import checked_exits
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
