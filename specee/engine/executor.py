"""Plans into backend calls. The only place that knows what a plan means."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence as Seq
from typing import TypeAlias

from specee.acceptance import Walk, walk
from specee.backends.protocol import Backend
from specee.clock import Clock
from specee.drafting import Drafter, DraftHeads, DraftTree
from specee.engine.checks import check_plan, drafter_of
from specee.engine.leaving import Leaving
from specee.engine.sequence import ActiveSequence
from specee.engine.shadows import Shadows
from specee.engine.verify import Pair, next_tokens, verify
from specee.policies import (
    Draft,
    DraftCost,
    DrafterTree,
    DraftSource,
    LeaveEarly,
    NextToken,
    NgramLookup,
    Outcome,
    Plan,
    Round,
    Speculate,
)

# What stands in for the source where nothing is drafted.
_NONE = NgramLookup()
_NO_PLAN = object()


Done: TypeAlias = tuple[ActiveSequence, DraftTree | None, Walk]
"""A sequence, its drafts, and what of them stays: :meth:`.ActiveSequence.commit` takes it."""


class Executor:
    """Runs plans on the sequences of one generation."""

    def __init__(
        self,
        backend: Backend,
        sequences: Mapping[int, ActiveSequence],
        drafters: Mapping[type[DraftSource], Drafter],
        heads: DraftHeads,
        kept: Seq[int],
    ) -> None:
        self._backend = backend
        self._sequences = sequences
        self._drafters = drafters
        self._model = heads.view
        self._kept = kept
        self._sound: object = _NO_PLAN  # the latest plan, if it passes its checks again as long as it fits
        self._shadows = Shadows(backend, sequences, heads, kept)
        self._leaving = Leaving(backend, heads)

    def run(self, plan: Plan, clock: Clock) -> list[Done]:
        """Draft, verify, and decide what stays; that is for the caller to commit.

        Raises what :func:`.check_plan` raises before anything ran. After any other exception (a user's
        processor, Ctrl-C) the sequences are to be restored.
        """
        if plan is not self._sound or not self._fits(plan):
            check_plan(plan, self._sequences, self._drafters, self._model, self._kept)
            self._sound = plan
        if isinstance(plan, LeaveEarly):
            return self._leaving.run(plan, self._sequences, clock)
        if isinstance(plan, NextToken):
            plain = [self._sequences[index] for index in plan.sequences]
            if True not in [sequence.judged for sequence in plain]:
                return _next_tokens(self._backend, plain, clock)
        pairs = [self._tree(draft) for draft in _drafts(plan)]
        self._grow(pairs, clock)
        if True not in [tree.shown or sequence.judged for sequence, tree in pairs]:
            return _next_tokens(self._backend, [sequence for sequence, _ in pairs], clock)
        targets = verify(self._backend, pairs, clock)
        done: list[Done] = []
        for index, (sequence, tree) in enumerate(pairs):
            done.append((sequence, tree, walk(tree, targets[index], sequence.end_after)))
        return done

    def ended(self, sequence: ActiveSequence | None = None) -> None:
        """A sequence is over: plans that name it are not sound any more, and rows that wait are completed."""
        self._sound = _NO_PLAN
        if sequence is not None:
            self._leaving.complete(sequence)

    def look(self, plan: Plan, outcome: Outcome, clock: Clock) -> Outcome:
        """See the shadows of a plan that has been committed with that outcome."""
        emitted = {entry.sequence: entry.tokens for entry in outcome.rounds}
        shadows = self._shadows.see(plan.shadows, emitted, clock)
        return outcome._replace(times=clock.times, shadows=shadows)

    def cost(self, source: DraftSource) -> DraftCost:
        """See :meth:`.Drafter.cost`."""
        return drafter_of(source, self._drafters).cost(source)

    def _fits(self, plan: Plan) -> bool:
        """Whether a plan that did so before certainly fits what its sequences may still be given."""
        if not isinstance(plan, Speculate):
            return True
        for draft in plan.drafts:
            if draft.otherwise is not None or draft.length >= self._sequences[draft.sequence].remaining:
                return False
        return True

    def _tree(self, draft: Draft) -> Pair:
        sequence = self._sequences[draft.sequence]
        request = sequence.request
        tree = DraftTree(
            draft, sequence.state, sequence.text, request.sampling, request.eos, rejection=sequence.rejection
        )
        return sequence, tree

    def _grow(self, pairs: Seq[Pair], clock: Clock) -> None:
        """Each source drafts for all sequences it serves; where one has nothing, the next has its turn."""
        trees = [tree for _, tree in pairs if tree.open]
        while trees:
            for kind in {type(tree.draft.source): None for tree in trees}:
                group = [tree for tree in trees if type(tree.draft.source) is kind]
                self._drafters[kind].draft(group, clock)
            trees = [tree for tree in trees if _turned(tree)]


def _next_tokens(backend: Backend, sequences: Seq[ActiveSequence], clock: Clock) -> list[Done]:
    """Plain decoding by the built-in rules, most steps of most texts: without trees, which cost time."""
    tokens = next_tokens(backend, sequences, clock)
    return [
        (sequence, None, Walk((token,), (), sequence.end_after((token,))))
        for sequence, token in zip(sequences, tokens, strict=True)
    ]


def _drafts(plan: NextToken | Speculate) -> Seq[Draft]:
    if isinstance(plan, NextToken):
        return [Draft(sequence, _NONE, 0) for sequence in plan.sequences]
    return plan.drafts


def _turned(tree: DraftTree) -> bool:
    """Whether a tree without drafts has another source to turn to; it has turned there."""
    if tree.shown or tree.draft.otherwise is None:
        return False
    tree.turn_to(tree.draft.otherwise)
    return tree.open


def outcome_of(done: Seq[Done], clock: Clock) -> Outcome:
    """What came of a plan, its shadows aside."""
    return Outcome(tuple([_round(*one) for one in done]), clock.times)


def _round(sequence: ActiveSequence, tree: DraftTree | None, done: Walk) -> Round:
    if tree is None or not tree.shown:
        return Round(sequence.id, done.tokens, exits=done.exits)
    drafts = Round(
        sequence.id,
        done.tokens,
        tree.draft.source,
        tree.drafted,
        len(done.path),
        tuple(tree.confidences),
        exits=done.exits or tuple(tree.exits),
        pruned=tuple(tree.pruned),
    )
    if not isinstance(tree.draft.source, DrafterTree):
        return drafts
    return drafts._replace(path=tuple([node - 1 for node in done.path]), depth=tree.depth)
