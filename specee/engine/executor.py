"""Plans into backend calls. The only place that knows what a plan means."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from collections.abc import Sequence as Seq

from specee.acceptance import walk
from specee.backends.protocol import Backend
from specee.clock import Clock
from specee.drafting import Drafter, DraftHeads, DraftTree
from specee.engine.checks import check_plan, drafter_of
from specee.engine.leaving import Leaving
from specee.engine.rounds import NativeRounds, Wanted
from specee.engine.sequence import ActiveSequence
from specee.engine.settled import Settled, Turn, walked
from specee.engine.shadows import Shadows
from specee.engine.verify import Pair, verify
from specee.policies import (
    Draft,
    DraftCost,
    DraftSource,
    LeaveEarly,
    NextToken,
    NgramLookup,
    Outcome,
    Plan,
    Speculate,
)

# What stands in for the source where nothing is drafted.
_NONE = NgramLookup()
_NO_PLAN = object()


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
        self._rounds = NativeRounds(backend, heads, drafters)

    def run(self, plan: Plan, turns: int = 1) -> Iterator[Turn]:
        """Draft, verify, and decide what stays; that it counts is for the caller to say, turn by turn.

        ``turns``: most of them; there is one where Python has a say in what is drafted or kept.

        Raises what :func:`.check_plan` raises before anything ran. After any other exception (a user's
        processor, Ctrl-C) the sequences are to be restored.
        """
        if plan is not self._sound or not self._fits(plan):
            check_plan(plan, self._sequences, self._drafters, self._model, self._kept)
            self._sound = plan
        clock = Clock()
        if isinstance(plan, LeaveEarly):
            yield Turn(self._leaving.run(plan, self._sequences, clock), clock)
        elif isinstance(plan, NextToken):
            yield from self._next_tokens(plan, clock, turns)
        else:
            yield from self._speculate(plan, clock, turns)

    def _next_tokens(self, plan: NextToken, clock: Clock, turns: int) -> Iterator[Turn]:
        sequences = [self._sequences[index] for index in plan.sequences]
        if True in [sequence.judged for sequence in sequences]:
            drafts = [Draft(index, _NONE, 0) for index in plan.sequences]
            yield Turn(self._watched(drafts, sequences, clock), clock)
        else:  # stops hear of a token anyway
            watched = True in [sequence.watched for sequence in sequences]
            yield from self._rounds.plain(sequences, clock, 1 if watched else turns)

    def _speculate(self, plan: Speculate, clock: Clock, turns: int) -> Iterator[Turn]:
        sequences = [self._sequences[draft.sequence] for draft in plan.drafts]
        if True in [sequence.watched for sequence in sequences]:
            yield Turn(self._watched(plan.drafts, sequences, clock), clock)
            return
        wanted = self._wanted(plan.drafts, sequences, clock)
        native = True not in [one.tree is not None for one in wanted]
        yield from self._rounds.run(wanted, clock, turns if native else 1)

    def _wanted(self, drafts: Seq[Draft], sequences: Seq[ActiveSequence], clock: Clock) -> list[Wanted]:
        """What Python drafts is drafted here, what the backend can draft by itself is left to it."""
        trees: dict[int, DraftTree] = {}
        for draft, sequence in zip(drafts, sequences, strict=True):
            if draft.length and not self._rounds.makes(draft):
                _, trees[sequence.id] = self._tree(draft, sequence)
        self._grow(list(trees.values()), clock)
        return [Wanted(*one, trees.get(one[0].id)) for one in zip(sequences, drafts, strict=True)]

    def _watched(self, drafts: Seq[Draft], sequences: Seq[ActiveSequence], clock: Clock) -> list[Settled]:
        """Where Python has a say: token by token."""
        pairs = [self._tree(*one) for one in zip(drafts, sequences, strict=True)]
        self._grow([tree for _, tree in pairs], clock)
        targets = verify(self._backend, pairs, clock)
        return [
            walked(sequence, tree, walk(tree, target, sequence.end_after))
            for (sequence, tree), target in zip(pairs, targets, strict=True)
        ]

    def ended(self, sequence: ActiveSequence | None = None) -> None:
        """A sequence is over: plans that name it are not sound any more, and rows that wait are completed."""
        self._sound = _NO_PLAN
        if sequence is not None:
            self._leaving.complete(sequence)

    def look(self, plan: Plan, emitted: Mapping[int, Seq[int]], outcome: Outcome, clock: Clock) -> Outcome:
        """See the shadows of a plan whose turns have been committed: ``outcome``, the last one's, with them.

        ``emitted``: what all of its turns gave, by sequence.
        """
        shadows = self._shadows.see(plan.shadows, emitted, clock)
        return outcome._replace(times=clock.times, shadows=shadows)

    def cost(self, source: DraftSource) -> DraftCost:
        """See :meth:`.Drafter.cost`."""
        return drafter_of(source, self._drafters).cost(source)

    def _fits(self, plan: Plan) -> bool:
        """Whether a plan that did so before certainly fits what its sequences may still be given."""
        if not isinstance(plan, Speculate):
            return True
        return False not in [draft.most < self._sequences[draft.sequence].remaining for draft in plan.drafts]

    def _tree(self, draft: Draft, sequence: ActiveSequence) -> Pair:
        request = sequence.request
        tree = DraftTree(
            draft, sequence.state, sequence.text, request.sampling, request.eos, rejection=sequence.rejection
        )
        return sequence, tree

    def _grow(self, trees: Seq[DraftTree], clock: Clock) -> None:
        """Each source drafts for all sequences it serves; where one has nothing, the next has its turn."""
        trees = [tree for tree in trees if tree.open]
        while trees:
            for kind in {type(tree.draft.source): None for tree in trees}:
                group = [tree for tree in trees if type(tree.draft.source) is kind]
                self._drafters[kind].draft(group, clock)
            trees = [tree for tree in trees if _turned(tree)]


def _turned(tree: DraftTree) -> bool:
    """Whether a tree without drafts has another source to turn to; it has turned there."""
    if tree.shown or tree.draft.otherwise is None:
        return False
    tree.turn_to(tree.draft.otherwise)
    return tree.open
