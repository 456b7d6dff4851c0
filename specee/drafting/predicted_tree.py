"""Trees of the speculator's block that exit predictors prune on their way to verification: SpecEE's T3."""

from __future__ import annotations

from collections.abc import Sequence as Seq

from specee.backends.protocol import Backend
from specee.clock import Clock
from specee.drafting.descent import Descent
from specee.drafting.drafter import States
from specee.drafting.drafter_tree import TreeDrafter
from specee.drafting.heads import DraftHeads
from specee.drafting.tree import DraftTree
from specee.policies import DraftCost, DraftSource, PredictedTree
from specee.policies.checks import check_layers, needed_exits


class PredictedTreeDrafter:
    """Grows what :class:`.TreeDrafter` does; rows of what is left wait at the last layer that was checked."""

    def __init__(self, backend: Backend, heads: DraftHeads, trees: TreeDrafter) -> None:
        self._heads, self._trees = heads, trees
        self._descent = Descent(backend, heads)

    def check(self, source: DraftSource) -> None:
        """See :meth:`.Drafter.check`."""
        assert isinstance(source, PredictedTree)
        self._trees.check(source)
        check_layers((), source.threshold, needed_exits(self._heads.view.exits))

    def cost(self, source: DraftSource) -> DraftCost:
        """See :meth:`.Drafter.cost`: what predictors read beside is next to nothing."""
        return self._trees.cost(source)

    def reads(self, source: DraftSource) -> States:
        """See :meth:`.Drafter.reads`."""
        return self._trees.reads(source)

    def draft(self, trees: Seq[DraftTree], clock: Clock) -> None:
        """See :meth:`.Drafter.draft`. What layers take is counted as verification, which it is part of."""
        self._trees.draft(trees, clock)
        self._descent.prune(trees, clock)
