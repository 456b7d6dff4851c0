"""How large a tree one sequence drafts with the speculator's block, and how likely its nodes have to be.

A node is worth its row where its chance, in tokens, reaches what the row's time gives in tokens elsewhere:
chance >= tokens per second x seconds of one row more. A depth is worth its pass likewise. So the table of
measured times sets both bounds, and how sure the block is sets the size of each tree. Where predictors prune
trees, wrong nodes cost less, and the asking costs something: then other sizes are best.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import add
from typing import NamedTuple

from specee.policies.chain_cost import ChainCost
from specee.policies.objective import LONGEST, Objective
from specee.policies.plans import Round
from specee.policies.prune_cost import PruneCost
from specee.policies.tree_evidence import TreeEvidence

_ENOUGH = 1.0  # rounds' worth of evidence under which a tree is tried as if for the first time
_MORE = 2  # times as many nodes in a round that is surer than most
_NEXT = 0.7  # of the chance of nodes that get children, what all their children have together
_CERTAIN = 0.9  # no bound is over this
_GAIN = 1.02  # what pruning has to promise over trees that are left whole, which are no trouble
_REST = (
    3  # plans for which that is not worked out again where it does not: it takes as long as all else in them
)


class TreePlan(NamedTuple):
    """Verify ``nodes`` at most, none whose chance is under ``stop_below``; see :class:`.Draft`.

    ``pruned``: whether predictors are to rule some of them out.
    """

    nodes: int
    stop_below: float
    deepen_from: float
    value: float
    pruned: bool = False


class TreeChoice:
    """Of one sequence; ``cost`` is known of all together. ``most``: nodes of a tree.

    ``pruning``: what is known of predictors, None where they have no part; ``whole``: whether trees may be
    left whole as well.
    """

    def __init__(
        self, cost: ChainCost, most: int = LONGEST, pruning: PruneCost | None = None, *, whole: bool = True
    ) -> None:
        self._cost = cost
        self._most = min(most, LONGEST)
        self._pruning, self._whole = pruning, whole or pruning is None
        self._evidence = TreeEvidence()
        self._planned = TreePlan(self._most, 0.0, 0.0, 0.0)
        self._fresh = True
        self._rest = 0  # plans for which pruning is not thought of
        self._known: tuple[Objective, tuple[float, ...]] | None = None  # what the latest plan follows from
        self._copies: tuple[Objective, list[float]] | None = None

    def learn_round(self, entry: Round, now: float) -> None:
        """A round of the latest plan's tree, also where predictors left nothing of it."""
        chances = sorted([*entry.confidences, *[one.confidence for one in entry.pruned]], reverse=True)
        self.learn(chances, entry.accepted, entry.depth, now)

    def learn(self, chances: Sequence[float], accepted: int, depth: int, now: float) -> None:
        """The tree of the latest plan, in round ``now``: what :meth:`.TreeEvidence.add` takes."""
        plan = self._planned
        self._evidence.add(chances, accepted, depth, plan.nodes, plan.stop_below, now, pruned=plan.pruned)
        self._fresh, self._known = False, None

    def best(self, objective: Objective, now: float) -> TreePlan:
        """The size worth most, and its value."""
        if self._evidence.weight(now) < _ENOUGH and not self._fresh:
            self._evidence, self._fresh = TreeEvidence(), True
            self._known = None
        pruning = self._pruning
        priced: tuple[float, ...] = (self._cost.first, self._cost.each)
        if pruning is not None:
            priced = (*priced, pruning.spared, pruning.questions)
        if self._known == (objective, priced):  # nothing has changed: rounds without trees are many
            return self._planned
        whole = self._plan(objective, None) if self._whole else None
        pruned = None if pruning is None or (whole and self._rest) else self._plan(objective, pruning)
        # Without a thought of pruning that is no plan to keep.
        self._known = None if pruning is not None and pruned is None else (objective, priced)
        self._rest = max(0, self._rest - 1)
        if pruned is not None and (whole is None or pruned.value >= _GAIN * whole.value):
            self._planned = pruned
        elif whole is not None:
            self._planned = whole
            if pruned is not None:
                self._rest = _REST
        return self._planned

    def _plan(self, objective: Objective, pruning: PruneCost | None) -> TreePlan:
        evidence, verified, pruned = self._evidence, self._verified(objective), pruning is not None
        each, deep = self._cost.each, int(evidence.depth)
        accepted = evidence.accepted(pruned=pruned)[: self._most]
        chains = [self._cost.first + made * each for made in range(min(deep, self._most))]
        chains += [self._cost.first + (evidence.depth - 1) * each] * (self._most - len(chains))
        seconds = list(map(add, verified[1:], chains))
        dear = 1.0  # parts of a row that a node which turns out wrong takes
        if pruning is not None:
            dear = 1 - pruning.spared
            for at, right in enumerate(accepted):
                rows = at + 1 - pruning.spared * max(0.0, at + 1 - right)
                seconds[at] += pruning.questions + _between(verified, rows) - verified[at + 1]
        choice = objective.most([1 + right for right in accepted], seconds)
        # Chances a second, for one sequence.
        pace = choice.value / (objective.plain * evidence.trusted(pruned=pruned))
        at = min(choice.length, LONGEST - 1)
        row, deeper = dear * (verified[at + 1] - verified[at]), each / _NEXT
        return TreePlan(
            min(_MORE * choice.length, self._most),
            max(0.0, min(pace * row, _CERTAIN)),
            min(pace * deeper, _CERTAIN),
            choice.value,
            pruned,
        )

    def _verified(self, objective: Objective) -> list[float]:
        """Seconds of rounds of 0, 1, ... drafts that come for nothing."""
        if self._copies is None or self._copies[0] is not objective:
            self._copies = objective, list(objective.chain_times(0.0, 0.0).seconds)
        return self._copies[1]


def _between(seconds: Sequence[float], rows: float) -> float:
    """Of a number of rows that need not be whole, at most the last one."""
    below = min(int(rows), len(seconds) - 2)
    return seconds[below] + (rows - below) * (seconds[below + 1] - seconds[below])
