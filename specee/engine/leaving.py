"""Approximate decoding: tokens leave where a predictor is sure, unverified; their rows are completed later.

Keys and values are those of the full model after the emitted text (SpecEE's released code never computes
those of layers that a token skipped): the next row that goes deeper takes the waiting ones along.
"""

from __future__ import annotations

from collections.abc import Mapping

from specee.acceptance import Walk
from specee.backends.protocol import Backend, ExitCall
from specee.clock import Clock
from specee.drafting import DraftHeads
from specee.drafting.columns import Columns, guessable
from specee.drafting.tree import DraftTree
from specee.engine.sequence import ActiveSequence
from specee.policies import Leave, LeaveEarly


class Leaving:
    """Carries out :class:`.LeaveEarly` for the sequences of one generation."""

    def __init__(self, backend: Backend, heads: DraftHeads) -> None:
        self._backend, self._heads = backend, heads
        self._columns = Columns(heads)

    def run(
        self, plan: LeaveEarly, sequences: Mapping[int, ActiveSequence], clock: Clock
    ) -> list[tuple[ActiveSequence, DraftTree | None, Walk]]:
        """One token for each sequence; that it stays is for the caller to commit."""
        assert self._heads.exits is not None
        named = [sequences[leave.sequence] for leave in plan.leaves]
        calls = [self._call(leave, one) for leave, one in zip(plan.leaves, named, strict=True)]
        left = self._backend.leave_early(
            self._columns.block, self._heads.exits, calls, self._heads.drafter_head, confirm=True
        )
        clock.draft += left.draft
        clock.verify += left.layers
        clock.head += left.head
        return [
            (sequence, None, Walk((token,), (), sequence.end_after((token,)), (layer,)))
            for sequence, (layer, token, _) in zip(named, left.exits, strict=True)
        ]

    def complete(self, sequence: ActiveSequence) -> None:
        """Take all rows that wait through the layers that they lack; the newest token is not computed yet."""
        newest = sequence.state.length - 2
        if newest >= 0 and sequence.state.frontier[-1] <= newest:
            self._backend.advance([(sequence.state, [newest])], self._backend.config.num_layers)

    def _call(self, leave: Leave, sequence: ActiveSequence) -> ExitCall:
        state, slot = sequence.state, len(sequence.text) - 1
        full = slot - state.frontier[-1] >= leave.waiting or not guessable(state)
        column = self._columns.of(sequence.id, state)
        sampling = sequence.request.sampling
        return ExitCall(state, column, slot, () if full else leave.layers, leave.threshold, sampling)
