"""How large a tree one sequence drafts with the speculator's block, and how likely its nodes have to be.

A node is worth its row where its chance, in tokens, reaches what the row's time gives in tokens elsewhere:
chance >= tokens per second x seconds of one row more. A depth is worth its pass likewise. So the table of
measured times sets both bounds, and how sure the block is sets the size of each tree.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from specee.policies.chain_cost import ChainCost
from specee.policies.objective import LONGEST, Objective
from specee.policies.tree_evidence import TreeEvidence

_ENOUGH = 1.0  # rounds' worth of evidence under which a tree is tried as if for the first time
_MORE = 2  # times as many nodes in a round that is surer than most
_NEXT = 0.7  # of the chance of nodes that get children, what all their children have together
_CERTAIN = 0.9  # no bound is over this


class TreePlan(NamedTuple):
    """Verify ``nodes`` at most, none whose chance is under ``stop_below``; see :class:`.Draft`."""

    nodes: int
    stop_below: float
    deepen_from: float
    value: float


class TreeChoice:
    """Of one sequence; ``cost`` is known of all together. ``most``: nodes of a tree."""

    def __init__(self, cost: ChainCost, most: int = LONGEST) -> None:
        self._cost = cost
        self._most = min(most, LONGEST)
        self._evidence = TreeEvidence()
        self._planned = TreePlan(self._most, 0.0, 0.0, 0.0)
        self._fresh = True
        self._known: tuple[Objective, float, float] | None = None  # what the latest plan follows from
        self._copies: tuple[Objective, list[float]] | None = None

    def learn(self, chances: Sequence[float], accepted: int, depth: int, now: float) -> None:
        """The tree of the latest plan, in round ``now``: what :meth:`.TreeEvidence.add` takes."""
        plan = self._planned
        self._evidence.add(chances, accepted, depth, plan.nodes, plan.stop_below, now)
        self._fresh, self._known = False, None

    def best(self, objective: Objective, now: float) -> TreePlan:
        """The size worth most, and its value."""
        if self._evidence.weight(now) < _ENOUGH and not self._fresh:
            self._evidence, self._fresh = TreeEvidence(), True
            self._known = None
        first, each = self._cost.first, self._cost.each
        if self._known == (objective, first, each):  # nothing has changed: rounds without trees are many
            return self._planned
        self._known = objective, first, each
        evidence, verified = self._evidence, self._verified(objective)
        tokens = [1 + accepted for accepted in evidence.accepted()[: self._most]]
        depth = evidence.depth
        seconds = [
            verified[nodes] + first + ((nodes if nodes < depth else depth) - 1) * each
            for nodes in range(1, self._most + 1)
        ]
        choice = objective.most(tokens, seconds)
        pace = choice.value / (objective.plain * evidence.trust)  # chances a second, for one sequence
        at = min(choice.length, LONGEST - 1)
        row, deeper = verified[at + 1] - verified[at], each / _NEXT
        self._planned = TreePlan(
            min(_MORE * choice.length, self._most),
            max(0.0, min(pace * row, _CERTAIN)),
            min(pace * deeper, _CERTAIN),
            choice.value,
        )
        return self._planned

    def _verified(self, objective: Objective) -> list[float]:
        """Seconds of rounds of 0, 1, ... drafts that come for nothing."""
        if self._copies is None or self._copies[0] is not objective:
            self._copies = objective, list(objective.chain_times(0.0, 0.0).seconds)
        return self._copies[1]
