"""Random exit predictors for tiny models, which now and then let a row go."""

from __future__ import annotations

import numpy as np

from specee.models.exit_parts import FEATURES, ExitParts
from specee.types import ModelConfig


def random_exits(
    config: ModelConfig, rng: np.random.Generator, candidates: int = 3, width: int = 24
) -> ExitParts:
    """A predictor for every layer but the last; chances are anything from 0 to 1."""
    layers = tuple(range(1, config.num_layers))
    count = len(layers)
    return ExitParts(
        layers,
        rng.normal(0, 0.5, (count, width, FEATURES * candidates)).astype(np.float32),
        rng.normal(0, 0.5, (count, width)).astype(np.float32),
        rng.normal(0, 4 / np.sqrt(width), (count, width)).astype(np.float32),
        rng.normal(0, 0.2, count).astype(np.float32),
        rng.dirichlet(np.ones(count)).astype(np.float32),
    )
