"""The parts of a drafter block as backends store them: matrices in 8-bit blocks, whatever the model's are.

A drafter changes how fast a text comes, never what it is; a byte a weight is what its time goes by.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from specee.errors import ConfigurationError
from specee.models.blocks import Bytes, Floats, quantise, scales
from specee.models.drafter_parts import DrafterParts
from specee.types import ModelConfig

QUANTISED: Final = "Q8_0"
"""What matrices are stored in."""


def checked_parts(parts: DrafterParts, config: ModelConfig) -> DrafterParts:
    """The parts as C-contiguous float32. Raises ConfigurationError for parts that do not fit the model."""
    arrays = {name: np.ascontiguousarray(array, np.float32) for name, array in parts.arrays()}
    checked = replace(parts, layers=tuple(int(layer) for layer in parts.layers), **arrays)
    if (wrong := checked.misfit(config)) is not None:
        raise ConfigurationError(f"a drafter's {wrong}: use a drafter that was fitted to this model")
    return checked


def stored_rows(matrix: Floats) -> Bytes:
    """A matrix in blocks. Raises ConfigurationError for values that have no finite scale."""
    rows = quantise(matrix, QUANTISED)
    if not np.isfinite(scales(rows, QUANTISED)).all():
        raise ConfigurationError(
            "a drafter's matrix has values that are no finite numbers, or too large for 8-bit blocks: make "
            "the speculator file again"
        )
    return rows
