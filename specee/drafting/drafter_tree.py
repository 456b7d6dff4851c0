"""Drafts from the speculator's block that branch: trees that the backend grows by what is likeliest."""

from __future__ import annotations

from collections.abc import Sequence as Seq

from specee.backends.protocol import Backend, SequenceState, TreeCall
from specee.clock import Clock
from specee.drafting.drafter import States
from specee.drafting.drafter_block import BlockDrafter, drawn
from specee.drafting.heads import DraftHeads
from specee.drafting.tree import DraftTree
from specee.policies import Draft, DraftCost, DrafterTree, DraftSource, PredictedTree
from specee.policies.checks import check_tree
from specee.types import Sampling


class TreeDrafter:
    """Shares the columns of the block's chains: one follows the text whichever of them drafts.

    Classical rejection gets trees without chance: the rule takes any number of such drafts at one position.
    """

    def __init__(self, backend: Backend, heads: DraftHeads, chains: BlockDrafter) -> None:
        self._backend = backend
        self._heads = heads
        self._chains = chains

    def check(self, source: DraftSource) -> None:
        """See :meth:`.Drafter.check`."""
        assert isinstance(source, DrafterTree)
        check_tree(source)
        self._chains.check(source)

    def cost(self, source: DraftSource) -> DraftCost:
        """See :meth:`.Drafter.cost`: that of one pass, which gives several tokens."""
        return self._chains.cost(source)

    def reads(self, source: DraftSource) -> States:
        """See :meth:`.Drafter.reads`."""
        return self._chains.reads(source)

    def draft(self, trees: Seq[DraftTree], clock: Clock) -> None:
        """See :meth:`.Drafter.draft`. A text whose states are not known yet gets nothing."""
        self.grow([tree for tree in trees if tree.open and self._chains.known(tree)], clock)
        for tree in trees:
            tree.close()

    def grow(self, trees: Seq[DraftTree], clock: Clock) -> None:
        """Grow all of these; positions that wait are guessed through.

        Those of a :class:`.PredictedTree` that has layers to be checked learn what is likely after their
        nodes.
        """
        if not trees:
            return
        block, head = self._chains.columns.block, self._heads.drafter_head
        calls = [self.wanted(tree.draft, tree.state, drawn(tree)) for tree in trees]
        grown = clock.timed("draft", self._backend.draft_trees, block, calls, head)
        for tree, found in zip(trees, grown, strict=True):
            tree.grow(*found)

    def wanted(self, draft: Draft, state: SequenceState, sampling: Sampling) -> TreeCall:
        """The tree that a plan asks for."""
        source, exits = draft.source, self._heads.exits
        assert isinstance(source, DrafterTree)
        limits = draft.length, source.depth, source.width, source.children
        column = self._chains.columns.of(draft.sequence, state)
        asked = exits is not None and bool(draft.layers) and isinstance(source, PredictedTree)
        likely = exits.candidates if exits is not None and asked else 0
        return TreeCall(state, column, *limits, draft.stop_below, draft.deepen_from, sampling, likely)
