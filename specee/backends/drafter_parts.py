"""The parts of a drafter block as backends store them: matrices in blocks, whatever the model's are.

A drafter changes how fast a text comes, never what it is; bytes are what its time goes by.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from specee.errors import ConfigurationError
from specee.models.blocks import Bytes, Floats, quantise, scales
from specee.models.drafter_parts import DrafterParts
from specee.types import ModelConfig


def checked_parts(parts: DrafterParts, config: ModelConfig) -> DrafterParts:
    """The parts as C-contiguous float32. Raises ConfigurationError for parts that do not fit the model."""
    arrays = {name: np.ascontiguousarray(array, np.float32) for name, array in parts.arrays()}
    checked = replace(parts, layers=tuple(int(layer) for layer in parts.layers), **arrays)
    if (wrong := checked.misfit(config)) is not None:
        raise ConfigurationError(f"a drafter's {wrong}: use a drafter that was fitted to this model")
    return checked


def stored_rows(matrix: Floats, stored: str) -> Bytes:
    """A matrix in blocks of that format. Raises ConfigurationError for values that have no finite scale."""
    rows = quantise(matrix, stored)
    if not np.isfinite(scales(rows, stored)).all():
        raise ConfigurationError(
            "a matrix to draft with has values that are no finite numbers, or too large for blocks: make the "
            "speculator file again"
        )
    return rows
