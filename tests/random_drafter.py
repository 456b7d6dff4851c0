"""Random drafter blocks for tiny models."""

from __future__ import annotations

import numpy as np

from specee.models.drafter_parts import FITTED, DrafterParts, shapes
from specee.types import ModelConfig


def random_parts(
    config: ModelConfig,
    layers: tuple[int, ...],
    rng: np.random.Generator,
    inner: int = 40,
    *,
    plain: bool = False,
) -> DrafterParts:
    """Norms near one and matrices that keep the size of what passes, so that nothing is neutral.

    ``plain``: EAGLE's block, which reads the last of ``layers``.
    """
    layers = layers[-1:] if plain else layers
    arrays = dict.fromkeys(FITTED, np.zeros(0, np.float32)) if plain else {}
    for name, shape in shapes(config, len(layers), inner, plain=plain).items():
        values = rng.standard_normal(shape)
        vector = name.endswith(("norm", "norms"))
        near = 1 + 0.3 * values if vector else values / np.sqrt(shape[-1] if len(shape) > 1 else 4)
        arrays[name] = near.astype(np.float32)
    return DrafterParts(layers, **arrays)
