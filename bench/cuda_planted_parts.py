"""The speculator of a planted model (:mod:`bench.cuda_planted_weights`), constructed as the truth is known.

What it takes is what a fitted one would: a plain block of the model's own size (EAGLE's), and a SpecEE
predictor of 512 hidden units behind every layer.
"""

from __future__ import annotations

import numpy as np

from specee.models.drafter_parts import FITTED, DrafterParts, shapes
from specee.models.exit_parts import FEATURES, ExitParts
from specee.models.speculator import Speculator

from .cuda_planted_weights import LOGIT, PlantedWeights

CANDIDATES, WIDTH = 4, 512
_SURE = 4.0  # logits beyond half of LOGIT at which a chance is a half


def planted_speculator(made: PlantedWeights) -> Speculator:
    """Block and predictors."""
    return Speculator(drafter=planted_block(made), exits=planted_exits(made))


def planted_block(made: PlantedWeights) -> DrafterParts:
    """One whose likeliest tokens are the guesses of all stages but the last, as the embedding has them.

    A candidate that only all layers know would let nothing leave earlier, and is not given away.
    """
    config, places = made.config, made.places
    wanted = shapes(config, 1, config.intermediate_size, plain=True)
    parts = {
        name: (np.ones if name.endswith(("norm", "norms")) else np.zeros)(shape, np.float32)
        for name, shape in wanted.items()
    }
    for stage in range(places.stages - 1):
        # Unequal, so that of two the better one is the likelier.
        parts["fc"][places.answer, places.guess(stage)] = np.eye(places.width) * (1 + stage / 2)
    empty = dict.fromkeys(FITTED, np.zeros(0, np.float32))
    return DrafterParts((config.num_layers,), **parts, **empty)


def planted_exits(made: PlantedWeights) -> ExitParts:
    """Sure where the logit of some candidate is beyond half of what a guess has: bluffs, too, look like that.

    Fitting would have counted exits at the planted layers alone.
    """
    layers = tuple(range(1, made.config.num_layers))
    count = len(layers)
    first = np.zeros((count, WIDTH, FEATURES * CANDIDATES), np.float32)
    bias, second = np.zeros((count, WIDTH), np.float32), np.zeros((count, WIDTH), np.float32)
    for candidate in range(CANDIDATES):
        first[:, candidate, candidate] = 1
    bias[:, :CANDIDATES] = -LOGIT / 2
    second[:, :CANDIDATES] = 1
    seen = np.array([(layer in made.layers) / len(made.layers) for layer in layers], np.float32)
    return ExitParts(layers, first, bias, second, np.full(count, -_SURE, np.float32), seen)
