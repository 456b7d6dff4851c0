"""Spreads and ratios: a machine whose speed drifts makes single figures worthless."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

Spread = dict[str, float]


def spread(values: Sequence[float]) -> Spread:
    """Median, least and greatest."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """Spread of ours / theirs, each pair taken in the same turn."""
    return spread([a / b for a, b in zip(ours, theirs, strict=True)])
