"""What early exits by predictor are made of: a small network a layer, and what was measured of them.

Xu et al., "SpecEE: Accelerating large language model inference with speculative early exiting", ISCA 2025.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from specee.types import ModelConfig

Floats = npt.NDArray[np.float32]

FEATURES = 3
"""Of a candidate: its logit, its probability among the candidates, and how that changed."""
MOST_CANDIDATES = 16


@dataclass(frozen=True)
class ExitParts:
    """Predictors for k candidates, all fp32: ``sigmoid(second . relu(first x + first_bias) + second_bias)``.

    x (3 k,): logits of the candidates after a layer, their softmax, and that minus the softmax at the layer
    checked before (the softmax itself at the first). ``layers``: n of them, 1..num_layers - 1, ascending;
    ``first`` (n, width, 3 k), ``first_bias`` (n, width), ``second`` (n, width), ``second_bias`` (n,).
    ``exits`` (n,): the share of tokens held out that left first at each layer, all of them checked.
    """

    layers: tuple[int, ...]
    first: Floats
    first_bias: Floats
    second: Floats
    second_bias: Floats
    exits: Floats

    @property
    def candidates(self) -> int:
        """Tokens that each row is judged by."""
        return int(self.first.shape[-1]) // FEATURES

    def arrays(self) -> Iterator[tuple[str, Floats]]:
        """Name and values of every array."""
        for field in fields(self):
            if field.name != "layers":
                yield field.name, getattr(self, field.name)

    def misfit(self, config: ModelConfig) -> str | None:
        """What is wrong with the parts for a model, None if they fit."""
        last, count = config.num_layers - 1, len(self.layers)
        ascending = all(a < b for a, b in pairwise(self.layers))
        if not count or not ascending or not 1 <= self.layers[0] <= self.layers[-1] <= last:
            return f"layers {self.layers}: allowed are 1..{last}, at least one, ascending"
        width, features = (1, 0) if self.first.ndim != 3 else self.first.shape[1:]
        most = FEATURES * min(MOST_CANDIDATES, config.vocab_size)
        if width < 1 or features % FEATURES or not FEATURES <= features <= most:
            return (
                f"first has shape {self.first.shape}, and must be (layers, width, {FEATURES} x candidates) "
                f"for 1 to {most // FEATURES} candidates"
            )
        wanted = {
            "first": (count, width, features),
            "first_bias": (count, width),
            "second": (count, width),
            "second_bias": (count,),
            "exits": (count,),
        }
        for name, array in self.arrays():
            if array.shape != wanted[name]:
                return f"{name} has shape {array.shape}, and must be {wanted[name]}"
        return None


@dataclass(frozen=True)
class Calibration:
    """Losses of approximate decoding on generations that nothing was fitted on.

    ``thresholds`` (m,), from the most careful one down, was tried with ``losses`` (m, generations): of each
    generation the share of emitted tokens that are not the full model's most likely ones after the same
    text. ``weights``: the format that the model was run with, which they hold for alone.
    """

    thresholds: Floats
    losses: Floats
    weights: str

    def misfit(self) -> str | None:
        """What is wrong with it, None if nothing is."""
        shape = self.losses.shape
        if self.thresholds.ndim != 1 or len(shape) != 2 or shape[0] != len(self.thresholds) or 0 in shape:
            return f"losses have shape {shape}: allowed is (thresholds, generations), one of each or more"
        thresholds = self.thresholds.tolist()
        if not all(a > b for a, b in pairwise(thresholds)) or not 0 <= thresholds[-1] <= thresholds[0] <= 1:
            return f"thresholds {thresholds}: allowed are descending ones, from 0 to 1"
        if self.losses.min() < 0 or self.losses.max() > 1:
            return "losses are not all shares, from 0 to 1"
        return None
