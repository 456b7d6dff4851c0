"""Approximate decoding: tokens leave where a predictor is sure, unverified; their rows are completed later.

Keys and values are those of the full model after the emitted text (SpecEE's released code never computes
those of layers that a token skipped): the next row that goes deeper takes the waiting ones along.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence as Seq
from dataclasses import replace

from specee.acceptance import Walk, walk
from specee.backends.protocol import Backend, ExitCall
from specee.clock import Clock
from specee.drafting import DraftHeads
from specee.drafting.columns import Columns, guessable
from specee.drafting.descent import Descent
from specee.drafting.drafter_block import BlockDrafter
from specee.drafting.drafter_tree import TreeDrafter
from specee.drafting.tree import DraftTree
from specee.engine.sequence import ActiveSequence
from specee.engine.settled import Settled, walked
from specee.engine.verify import Pair, verify
from specee.policies import DrafterTree, Leave, LeaveEarly


class Leaving:
    """Carries out :class:`.LeaveEarly` for the sequences of one generation."""

    def __init__(self, backend: Backend, heads: DraftHeads) -> None:
        self._backend, self._heads = backend, heads
        self._columns = Columns(heads)
        self._trees = TreeDrafter(backend, heads, BlockDrafter(backend, heads, self._columns))
        self._descent = Descent(backend, heads)

    def run(self, plan: LeaveEarly, sequences: Mapping[int, ActiveSequence], clock: Clock) -> list[Settled]:
        """One token or more for each sequence; that they stay is for the caller to commit."""
        alone: list[tuple[Leave, ActiveSequence]] = []
        pairs: list[Pair] = []
        for leave in plan.leaves:
            sequence = sequences[leave.sequence]
            tree = self._tree(leave, sequence)
            if tree is None:
                alone.append((leave, sequence))
            else:
                pairs.append((sequence, tree))
        return [*self._rows(alone, clock), *self._paths(pairs, clock)]

    def complete(self, sequence: ActiveSequence) -> None:
        """Take all rows that wait through the layers that they lack; the newest token is not computed yet."""
        newest = sequence.state.length - 2
        if newest >= 0 and sequence.state.frontier[-1] <= newest:
            self._backend.advance([(sequence.state, [newest])], self._backend.config.num_layers)

    def _rows(self, pairs: Seq[tuple[Leave, ActiveSequence]], clock: Clock) -> list[Settled]:
        """One token each."""
        if not pairs:
            return []
        assert self._heads.exits is not None
        calls = [self._call(*pair) for pair in pairs]
        left = self._backend.leave_early(
            self._columns.block, self._heads.exits, calls, self._heads.drafter_head, confirm=True
        )
        clock.draft += left.draft
        clock.verify += left.layers
        clock.head += left.head
        return [
            walked(sequence, None, Walk((token,), (), sequence.end_after((token,)), (layer,)))
            for (_, sequence), (layer, token, _) in zip(pairs, left.exits, strict=True)
        ]

    def _paths(self, pairs: Seq[Pair], clock: Clock) -> list[Settled]:
        """As many tokens each as a path has nodes; where none leaves, the tree is verified."""
        self._trees.grow([tree for _, tree in pairs], clock)
        found = self._descent.leave([tree for _, tree in pairs], clock)
        done: list[Settled] = []
        for (sequence, tree), left in zip(pairs, found, strict=True):
            if left is not None:
                ended = walk(tree, left.tokens.__getitem__, sequence.end_after)
                exits = (left.layer,) * len(ended.tokens)
                done.append(walked(sequence, tree, ended._replace(exits=exits)))
        whole = [pair for pair, left in zip(pairs, found, strict=True) if left is None]
        targets = verify(self._backend, whole, clock) if whole else []
        for (sequence, tree), target in zip(whole, targets, strict=True):
            ended = walk(tree, target, sequence.end_after)
            exits = (self._backend.config.num_layers,) * len(ended.tokens)
            done.append(walked(sequence, tree, ended._replace(exits=exits)))
        return done

    def _tree(self, leave: Leave, sequence: ActiveSequence) -> DraftTree | None:
        """A tree whose paths are no longer than rows may wait, None where there is room for none."""
        draft, state = leave.tree, sequence.state
        depth = leave.waiting - (len(sequence.text) - 1 - state.frontier[-1])
        if draft is None or not (draft.length and leave.layers) or depth < 1 or not guessable(state):
            return None
        assert isinstance(draft.source, DrafterTree)
        source = replace(draft.source, depth=min(draft.source.depth, depth))
        request = sequence.request
        return DraftTree(draft._replace(source=source), state, sequence.text, request.sampling, request.eos)

    def _call(self, leave: Leave, sequence: ActiveSequence) -> ExitCall:
        state, slot = sequence.state, len(sequence.text) - 1
        full = slot - state.frontier[-1] >= leave.waiting or not guessable(state)
        column = self._columns.of(sequence.id, state)
        sampling = sequence.request.sampling
        return ExitCall(state, column, slot, () if full else leave.layers, leave.threshold, sampling)
