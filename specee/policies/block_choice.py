"""How far one sequence drafts with the speculator's block."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from specee.policies.chain_cost import ChainCost
from specee.policies.evidence import Evidence
from specee.policies.objective import Acceptance, Objective, RoundTimes

# What is thought of a block before it has drafted: drafts that were right or wrong, and how sure they were.
# The same again when what it has shown has faded to less than one draft: so it is tried anew after a while.
_MATCHES, _CONFIDENCES = (True, True, False, False), (0.8, 0.6, 0.4, 0.2)
_ENOUGH, _MOST = 1.0, 20.0


class BlockPlan(NamedTuple):
    """Draft ``length`` tokens at most, until one's confidence is under ``stop_below``."""

    length: int
    stop_below: float
    value: float


class BlockChoice:
    """Of one sequence; what chains cost is known of all together."""

    def __init__(self, cost: ChainCost) -> None:
        self._cost = cost
        self._evidence = _fresh(0.0)
        self._known: RoundTimes | None = None  # what the latest plan follows from
        self._planned = BlockPlan(1, 0.0, 0.0)

    def learn(self, matches: Sequence[bool], confidences: Sequence[float], now: float) -> None:
        """Drafts of round ``now``: all that were right, and the first that was not."""
        self._evidence.cap(_MOST)
        self._evidence.add(matches, confidences, now)
        self._known = None

    def best(self, objective: Objective, now: float) -> BlockPlan:
        """The length worth most, and its value."""
        if self._evidence.weight(now) < _ENOUGH:
            self._evidence, self._known = _fresh(now), None
        rounds = self._cost.times(objective)
        if self._known is not rounds:  # else nothing has changed: rounds without chains are many
            self._known, self._planned = rounds, self._plan(objective, rounds)
        return self._planned

    def _plan(self, objective: Objective, rounds: RoundTimes) -> BlockPlan:
        evidence = self._evidence
        plain = objective.best_of(rounds, Acceptance(1.0, evidence.rate, 0.0))
        stopped = objective.best_of(rounds, evidence.acceptance)
        if stopped.value > plain.value:
            return BlockPlan(stopped.length, evidence.threshold, stopped.value)
        return BlockPlan(plain.length, 0.0, plain.value)


def _fresh(now: float) -> Evidence:
    evidence = Evidence()
    evidence.add(_MATCHES, _CONFIDENCES, now)
    return evidence
