"""What speculation did in runs of ours: rounds, drafts, and where the time went."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from specee.engine.statistics import Statistics


@dataclass(frozen=True)
class Rounds:
    """Of one run.

    ``steps`` counts all steps. ``rounds`` and ``tokens``, what those emitted, leave out the first step, which
    computes the prompt and never drafts; so do ``shares``, parts of the time that add up to 1.
    """

    steps: int
    rounds: int
    tokens: int
    drafted: int
    accepted: int
    shares: dict[str, float]


def of(statistics: Statistics) -> Rounds:
    """Those of a generation."""
    later = [entry for step in statistics.steps[1:] for entry in step]
    acceptance = statistics.acceptance
    return Rounds(
        steps=len(statistics.steps),
        rounds=len(later),
        tokens=statistics.later_tokens,
        drafted=acceptance.drafted,
        accepted=acceptance.accepted,
        shares=statistics.shares,
    )


def figures(found: Sequence[Rounds]) -> dict[str, Any]:
    """What is reported of several runs: counts over all of them, shares as medians.

    Plain decoding drafts nothing, and has no ``acceptance``.
    """
    rounds, drafted = sum(one.rounds for one in found), sum(one.drafted for one in found)
    accepted = sum(one.accepted for one in found)
    parts = dict.fromkeys(part for one in found for part in one.shares)
    return {
        "rounds": rounds,
        "drafted": drafted,
        "accepted": accepted,
        **({"acceptance": accepted / drafted} if drafted else {}),
        "tokens_per_round": sum(one.tokens for one in found) / rounds if rounds else 0.0,
        "shares": {part: median(one.shares.get(part, 0.0) for one in found) for part in parts},
    }
