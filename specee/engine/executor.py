"""Plans into backend calls. The only place that knows what a plan means."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence as Seq
from dataclasses import dataclass

from specee.acceptance import Walk, walk
from specee.backends.protocol import Backend
from specee.clock import Clock
from specee.drafting import Drafter, DraftTree
from specee.engine.checks import check_plan
from specee.engine.sequence import ActiveSequence
from specee.engine.verify import Pair, targets
from specee.policies import Draft, DraftSource, NextToken, NgramLookup, Observation, Outcome, Plan, Round
from specee.types import FinishReason

# What stands in for the source where nothing is drafted.
_NONE = NgramLookup()


@dataclass(frozen=True)
class Emission:
    """Tokens for one sequence; the first of them have speculative rows, whose slots are ``path``."""

    sequence: ActiveSequence
    tokens: tuple[int, ...]
    path: tuple[int, ...]
    end: FinishReason | None


class Executor:
    """Runs plans on the sequences of one generation."""

    def __init__(
        self,
        backend: Backend,
        sequences: Mapping[int, ActiveSequence],
        drafters: Mapping[type[DraftSource], Drafter],
    ) -> None:
        self._backend = backend
        self._sequences = sequences
        self._drafters = drafters

    def run(self, plan: Plan, observation: Observation) -> tuple[Outcome, list[Emission]]:
        """Carry out a plan made for ``observation``; what it gives is for the caller to commit.

        Raises what :func:`.check_plan` raises before anything ran. After an exception in between (a
        user's processor, Ctrl-C) no speculative row is left.
        """
        check_plan(plan, self._sequences, self._drafters)
        clock = Clock()
        pairs = [self._tree(draft) for draft in _drafts(plan)]
        try:
            self._grow([tree for _, tree in pairs], clock)
            work = [(tree.state, tree.slots) for _, tree in pairs]
            clock.timed("verify", self._backend.advance, work, self._backend.config.num_layers)
            walks = [
                walk(tree, target, sequence.end_after)
                for (sequence, tree), target in zip(pairs, targets(self._backend, pairs, clock), strict=True)
            ]
        except BaseException:
            for sequence, _ in pairs:
                sequence.abandon()
            raise
        rows = _waiting(pairs, observation) + sum(tree.drafted for _, tree in pairs)
        outcome = Outcome(_rounds(pairs, walks), rows=rows, seconds=clock.elapsed, times=clock.times)
        return outcome, [_emission(*pair, done) for pair, done in zip(pairs, walks, strict=True)]

    def _tree(self, draft: Draft) -> Pair:
        sequence = self._sequences[draft.sequence]
        request = sequence.request
        rejection = request.acceptance == "rejection" and request.sampling.temperature > 0
        tree = DraftTree(
            draft, sequence.state, sequence.text, request.sampling, request.eos, rejection=rejection
        )
        return sequence, tree

    def _grow(self, trees: Seq[DraftTree], clock: Clock) -> None:
        """Each source drafts for all sequences that it serves."""
        kinds: dict[type[DraftSource], list[DraftTree]] = {}
        for tree in trees:
            if tree.open:
                kinds.setdefault(type(tree.draft.source), []).append(tree)
        for kind, group in kinds.items():
            self._drafters[kind].draft(group, clock)


def _drafts(plan: Plan) -> Seq[Draft]:
    if isinstance(plan, NextToken):
        return [Draft(sequence, _NONE, 0) for sequence in plan.sequences]
    return plan.drafts


def _waiting(pairs: Seq[Pair], observation: Observation) -> int:
    """Committed positions that verification completes."""
    named = {sequence.id for sequence, _ in pairs}
    return sum(view.length - view.frontier[-1] for view in observation.sequences if view.id in named)


def _rounds(pairs: Seq[Pair], walks: Seq[Walk]) -> tuple[Round, ...]:
    return tuple(
        Round(
            sequence.id,
            done.tokens,
            tree.draft.source if tree.drafted else None,
            tree.drafted,
            len(done.path),
            tuple(tree.confidences),
        )
        for (sequence, tree), done in zip(pairs, walks, strict=True)
    )


def _emission(sequence: ActiveSequence, tree: DraftTree, done: Walk) -> Emission:
    return Emission(sequence, done.tokens, tuple(tree.slots[node] for node in done.path), done.end)
