"""Random drafter blocks for tiny models."""

from __future__ import annotations

import numpy as np

from specee.models.drafter_parts import DrafterParts, shapes
from specee.types import ModelConfig


def random_parts(
    config: ModelConfig, layers: tuple[int, ...], rng: np.random.Generator, inner: int = 40
) -> DrafterParts:
    """Norms near one and matrices that keep the size of what passes, so that nothing is neutral."""
    arrays = {}
    for name, shape in shapes(config, len(layers), inner).items():
        values = rng.standard_normal(shape)
        vector = name.endswith(("norm", "norms"))
        arrays[name] = (1 + 0.3 * values if vector else values / np.sqrt(shape[-1])).astype(np.float32)
    return DrafterParts(layers, **arrays)
