"""An objective at prices under which rows are nearly free, as where weights are what takes time."""

from __future__ import annotations

from specee.policies import Latency
from specee.policies.objective import Acceptance, Choice, Objective

LAYERS = 30
# Rows are nearly free, as where weights are what takes time.
FLAT = Latency((1, 16), (1e-4, 1.3e-4), (2e-4, 3e-4), 1e-6, 1e-5)


def objective(latency: Latency = FLAT) -> Objective:
    return Objective(latency, LAYERS)


def best_stopped(judge: Objective, layer: int, head: float, rates: Acceptance) -> Choice:
    """The length worth most of drafts of an exit layer that end after one that is not sure."""
    return judge.best_of(judge._whole(layer, head), rates)
