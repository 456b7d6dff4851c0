"""The argument of :meth:`.Backend.exit_predictors`, checked alike for every backend."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from specee.errors import ConfigurationError
from specee.models.exit_parts import ExitParts
from specee.types import ModelConfig


def checked_exits(parts: ExitParts, config: ModelConfig) -> ExitParts:
    """The parts as C-contiguous float32. Raises ConfigurationError for parts that do not fit the model."""
    arrays = {name: np.ascontiguousarray(array, np.float32) for name, array in parts.arrays()}
    checked = replace(parts, layers=tuple(int(layer) for layer in parts.layers), **arrays)
    if (wrong := checked.misfit(config)) is not None:
        raise ConfigurationError(f"exit predictors: {wrong}; use some that were fitted to this model")
    return checked
