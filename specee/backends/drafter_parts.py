"""The parts of a drafter block as backends store them: matrices in blocks, whatever the model's are.

A drafter changes how fast a text comes, never what it is; bytes are what its time goes by.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from specee.backends.protocol import DraftFormat
from specee.errors import ConfigurationError
from specee.models.blocks import Bytes, Floats, quantise, row_bytes, scales
from specee.models.drafter_parts import DrafterParts, shapes
from specee.types import ModelConfig, WeightFormat


def checked_parts(parts: DrafterParts, config: ModelConfig) -> DrafterParts:
    """The parts as C-contiguous float32. Raises ConfigurationError for parts that do not fit the model."""
    arrays = {name: np.ascontiguousarray(array, np.float32) for name, array in parts.arrays()}
    checked = replace(parts, layers=tuple(int(layer) for layer in parts.layers), **arrays)
    if (wrong := checked.misfit(config)) is not None:
        raise ConfigurationError(f"a drafter's {wrong}: use a drafter that was fitted to this model")
    return checked


def stored_format(weights: WeightFormat) -> DraftFormat:
    """Where a step of the model reads half a byte a weight, a draft that reads more takes too much of it."""
    return "Q4_1" if weights in ("packed", "int4") else "Q8_0"


def matrix_bytes(config: ModelConfig, layers: int, inner: int, stored: DraftFormat) -> int:
    """Of the matrices that a draft of a block reads, as they are stored."""
    wanted = shapes(config, layers, inner)
    del wanted["state_norms"]  # small, and no matrix
    return sum(shape[0] * row_bytes(stored, shape[1]) for shape in wanted.values() if len(shape) == 2)


def stored_rows(matrix: Floats, stored: str) -> Bytes:
    """A matrix in blocks of that format. Raises ConfigurationError for values that have no finite scale."""
    rows = quantise(matrix, stored)
    if not np.isfinite(scales(rows, stored)).all():
        raise ConfigurationError(
            "a matrix to draft with has values that are no finite numbers, or too large for blocks: make the "
            "speculator file again"
        )
    return rows
