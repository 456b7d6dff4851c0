"""Drafts from the speculator's block: chains that the backend makes in one call."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import replace

from specee.backends.protocol import Backend, ChainCall, SequenceState
from specee.clock import Clock
from specee.drafting.columns import WINDOW, Columns
from specee.drafting.drafter import States
from specee.drafting.heads import DraftHeads
from specee.drafting.tree import DraftTree
from specee.policies import Draft, DraftCost, DraftSource
from specee.types import Sampling


class BlockDrafter:
    """A column of keys and values for each sequence, which follows its text by itself."""

    def __init__(self, backend: Backend, heads: DraftHeads, columns: Columns) -> None:
        self._backend = backend
        self._heads = heads
        self.columns = columns

    def check(self, source: DraftSource) -> None:
        """See :meth:`.Drafter.check`."""
        _ = self.columns.block

    def cost(self, source: DraftSource) -> DraftCost:
        """See :meth:`.Drafter.cost`: the block's weights and its head's, counted as the model's head."""
        _ = self.columns.block
        return DraftCost(0, self._heads.drafter_share or 0.0)

    def reads(self, source: DraftSource) -> States:
        """See :meth:`.Drafter.reads`."""
        return States(self.columns.block.layers, WINDOW)

    def draft(self, trees: Seq[DraftTree], clock: Clock) -> None:
        """See :meth:`.Drafter.draft`. A text whose states are not known yet gets nothing."""
        able = [tree for tree in trees if tree.open and self.known(tree)]
        if able:
            calls = [self.wanted(tree.draft, tree.state, drawn(tree)) for tree in able]
            arguments = self.columns.block, calls, self._heads.drafter_head
            chains = clock.timed("draft", self._backend.draft_chains, *arguments)
            for tree, (tokens, confidences) in zip(able, chains, strict=True):
                tree.chain(tokens, confidences)
        for tree in trees:
            tree.close()

    def known(self, tree: DraftTree) -> bool:
        """Whether the state before the newest position is kept, so that drafts can begin."""
        before = tree.tip - 1
        layers = self._backend.config.num_layers
        return before >= 0 and tree.state.kept > 0 and tree.state.row(before).done == layers

    def wanted(self, draft: Draft, state: SequenceState, sampling: Sampling) -> ChainCall:
        """The chain that a plan asks for."""
        column = self.columns.of(draft.sequence, state)
        return ChainCall(state, column, draft.length, draft.stop_below, sampling)


def drawn(tree: DraftTree) -> Sampling:
    """Classical rejection gets the likeliest tokens, which are no draws: it may keep any such draft."""
    if not tree.rejection:
        return tree.sampling
    return replace(Sampling(), repetition_penalty=tree.sampling.repetition_penalty)
