"""SpecEE's token trees (T3; Xu et al., ISCA 2025): the block drafts a tree, predictors are asked on its way.

``lossless``: branches that predictors rule out go no deeper, and all others are verified. ``approximate``: as
published, a path leaves for good when all its nodes would: its exit layer is the latest of theirs.
"""

from __future__ import annotations

from typing import get_args

from specee.policies import settings
from specee.policies.checks import needed_exits
from specee.policies.exit_schedule import ExitSchedule
from specee.policies.plans import (
    Draft,
    Leave,
    LeaveEarly,
    ModelView,
    Needs,
    Observation,
    Outcome,
    PredictedTree,
    SequenceView,
    Speculate,
)
from specee.policies.prune_cost import PruneCost
from specee.policies.specee import WAITING, Layers, Mode
from specee.policies.tree_sizes import TreeSizes

_DEEP, _SHALLOW = 8, 3  # drafts in a row: all verified, and of a path that leaves as a whole or not at all


class SpecEETrees:
    """Trees of the loaded speculator's block, with its exit predictors.

    ``threshold``: of a predictor's chance, above which a node has decided. ``layers``: those that are
    checked, by two-level scheduling or all. ``nodes``, ``depth``, ``width``, ``children``: of a tree, as for
    :class:`.DrafterTrees`; depth is 8, or 3 in approximate mode. ``measured``: in lossless mode each round
    has as many nodes as are expected to give most tokens a second, none where drafting does not pay; else
    there are ``nodes`` always, as in approximate mode. Raises ConfigurationError.
    """

    name = "specee-tree"

    def __init__(
        self,
        mode: Mode = "lossless",
        layers: Layers = "scheduled",
        threshold: float = 0.5,
        nodes: int = 16,
        depth: int | None = None,
        width: int = 4,
        children: int = 4,
        *,
        measured: bool = True,
    ) -> None:
        self._approximate = settings.one_of(self.name, "mode", mode, get_args(Mode)) == "approximate"
        self._everywhere = settings.one_of(self.name, "layers", layers, get_args(Layers)) == "all"
        self._measured = settings.flag(self.name, "measured", measured) and not self._approximate
        self._nodes = settings.whole(self.name, "nodes", nodes, 1)
        usual = _SHALLOW if self._approximate else _DEEP
        self._source = PredictedTree(
            settings.whole(self.name, "depth", usual if depth is None else depth, 1),
            settings.whole(self.name, "width", width, 1),
            settings.whole(self.name, "children", children, 1),
            settings.share(self.name, "threshold", threshold),
        )

    def begin(self, model: ModelView) -> Needs:
        """Forget all texts. Raises ConfigurationError for a model without a block or predictors."""
        exits = needed_exits(model.exits)
        self._schedule = ExitSchedule(exits.layers, exits.shares, everywhere=self._everywhere)
        self._sizes = TreeSizes(self.name, model, self._nodes, PruneCost(exits, model.layers))
        return Needs((self._source,), latency=self._measured)

    def plan(self, observation: Observation) -> Speculate | LeaveEarly:
        """Every sequence by itself; a prompt comes first."""
        if self._approximate:
            return LeaveEarly(tuple([self._leave(view) for view in observation.sequences]))
        return Speculate(tuple([self._draft(view, observation) for view in observation.sequences]))

    def observe(self, outcome: Outcome) -> None:
        """Where tokens left, what trees take, and how often they are right."""
        if self._measured:
            self._sizes.observe(outcome)
        for entry in outcome.rounds:
            self._schedule.observe(entry.sequence, entry.exits)

    def _draft(self, view: SequenceView, observation: Observation) -> Draft:
        layers = self._schedule.of(view.id)
        if self._measured:
            return self._sizes.draft(view, self._source, observation, layers)
        return self._fixed(view, layers)

    def _fixed(self, view: SequenceView, layers: tuple[int, ...]) -> Draft:
        nodes = 0 if view.fresh else min(self._nodes, view.remaining - 1)
        return Draft(view.id, self._source, nodes, layers=layers)

    def _leave(self, view: SequenceView) -> Leave:
        layers = self._schedule.of(view.id)
        return Leave(view.id, layers, self._source.threshold, WAITING, self._fixed(view, layers))
