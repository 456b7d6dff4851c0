"""Drafts from the layer where an exit predictor is sure: SpecEE's exits, all verified afterwards."""

from __future__ import annotations

from collections.abc import Sequence as Seq

from specee.backends.protocol import Backend, ExitCall, ExitChainCall, FittedExits, SequenceState
from specee.clock import Clock
from specee.drafting.columns import WINDOW, Columns, guessable
from specee.drafting.drafter import States
from specee.drafting.drafter_block import drawn
from specee.drafting.heads import DraftHeads
from specee.drafting.tree import DraftTree
from specee.policies import Draft, DraftCost, DraftSource, PredictedExit
from specee.policies.checks import check_layers, needed_exits
from specee.types import Sampling


class PredictedExitDrafter:
    """Rows of any depth, side by side. They wait where they left for verification."""

    def __init__(self, backend: Backend, heads: DraftHeads, columns: Columns) -> None:
        self._backend, self._heads, self._columns = backend, heads, columns

    def check(self, source: DraftSource) -> None:
        """See :meth:`.Drafter.check`."""
        assert isinstance(source, PredictedExit)
        _ = self._columns.block
        check_layers(self._exits().layers, source.threshold, self._heads.view.exits)

    def cost(self, source: DraftSource) -> DraftCost:
        """See :meth:`.Drafter.cost`: the layers up to the last predictor, and the block; most take fewer."""
        return DraftCost(self._exits().layers[-1], self._heads.drafter_share or 0.0)

    def reads(self, source: DraftSource) -> States:
        """See :meth:`.Drafter.reads`."""
        return States(self._columns.block.layers, WINDOW)

    def draft(self, trees: Seq[DraftTree], clock: Clock) -> None:
        """See :meth:`.Drafter.draft`. Each turn gives every open tree one token, or closes it."""
        while still := [tree for tree in trees if tree.open]:
            able = [tree for tree in still if tree.draft.layers and guessable(tree.state)]
            if able:
                self._turn(able, clock)
            for tree in still:
                if tree not in able:
                    tree.close()

    def wanted(self, draft: Draft, state: SequenceState, sampling: Sampling) -> ExitChainCall:
        """The chain that a plan asks for, where the backend drafts by itself."""
        source = draft.source
        assert isinstance(source, PredictedExit)
        column = self._columns.of(draft.sequence, state)
        return ExitChainCall(
            state, column, draft.length, draft.stop_below, draft.layers, source.threshold, sampling
        )

    def _turn(self, trees: Seq[DraftTree], clock: Clock) -> None:
        calls = [self._call(tree) for tree in trees]
        left = self._backend.leave_early(
            self._columns.block, self._exits(), calls, self._heads.drafter_head, confirm=False
        )
        clock.draft += left.draft + left.layers
        clock.draft_head += left.head
        for tree, (layer, token, confidence) in zip(trees, left.exits, strict=True):
            if layer:
                tree.extend([token], confidence)
                tree.exits.append(layer)
            else:
                tree.close()

    def _call(self, tree: DraftTree) -> ExitCall:
        source = tree.draft.source
        assert isinstance(source, PredictedExit)
        column = self._columns.of(tree.draft.sequence, tree.state)
        return ExitCall(tree.state, column, tree.tip, tree.draft.layers, source.threshold, drawn(tree))

    def _exits(self) -> FittedExits:
        return needed_exits(self._heads.exits)
