"""Rounds in which Python has no say after the plan: one call of the backend drafts, verifies and commits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from collections.abc import Sequence as Seq
from typing import NamedTuple, TypeAlias, get_args

from specee.backends.protocol import (
    Backend,
    CopyCall,
    RoundCall,
    RoundDrafts,
    RoundText,
    RoundTurn,
)
from specee.clock import Clock
from specee.drafting import Drafter, DraftHeads, DraftTree
from specee.drafting.drafter_block import BlockDrafter
from specee.drafting.drafter_tree import TreeDrafter
from specee.drafting.exit_layer import ExitLayerDrafter
from specee.drafting.predicted_exit import PredictedExitDrafter
from specee.drafting.prompt_lookup import PromptLookupDrafter
from specee.engine.sequence import ActiveSequence
from specee.engine.settled import Settled, Turn, drafted_round, round_of
from specee.policies import Draft, DraftSource, NgramLookup, Round

_Maker: TypeAlias = BlockDrafter | TreeDrafter | ExitLayerDrafter | PredictedExitDrafter
_MAKERS = get_args(_Maker)


class Wanted(NamedTuple):
    """A sequence and its draft. ``tree``: what was drafted already, None where the backend is to draft."""

    sequence: ActiveSequence
    draft: Draft
    tree: DraftTree | None


class NativeRounds:
    """Carries them out. Sequences that a user's code watches are not for it.

    What it gives is to be committed turn by turn: each one is told from the text that those before it left.
    """

    def __init__(
        self, backend: Backend, heads: DraftHeads, drafters: Mapping[type[DraftSource], Drafter]
    ) -> None:
        self._backend, self._heads = backend, heads
        self._makers: dict[type[DraftSource], _Maker] = {}
        for kind, drafter in drafters.items():
            # A class derived from one of these may draft otherwise.
            if isinstance(drafter, _MAKERS) and type(drafter) in _MAKERS:
                self._makers[kind] = drafter
        copier = drafters.get(NgramLookup)
        self._copier = copier if type(copier) is PromptLookupDrafter else None

    def makes(self, draft: Draft) -> bool:
        """Whether the backend can draft it by itself: what it makes, or copies and else what it makes."""
        if type(draft.source) is NgramLookup:
            rest = draft.otherwise
            return self._copier is not None and (rest is None or self._can(rest))
        return self._can(draft)

    def _can(self, draft: Draft) -> bool:
        return draft.otherwise is None and type(draft.source) in self._makers

    def plain(self, sequences: Seq[ActiveSequence], clock: Clock, turns: int) -> Iterator[Turn]:
        """The same without drafts, in most steps of most texts: the fewer calls the better."""
        calls = [
            RoundCall(one.state, one.request.sampling, one.request.eos, one.remaining) for one in sequences
        ]
        for done in self._backend.run_rounds(calls, turns=turns):
            settled = [
                Settled(sequence, Round(sequence.id, text[0]), sequence.end_after(text[0]), None)
                for sequence, text in zip(sequences, done[0], strict=True)
            ]
            yield Turn(settled, _counted(clock, done))
            clock = Clock()

    def run(self, wanted: Seq[Wanted], clock: Clock, turns: int) -> Iterator[Turn]:
        """Text that counts when the caller says so; the rows are it already."""
        calls = [self._call(one) for one in wanted]
        if True in [call.drafts is not None for call in calls]:
            heads = self._heads
            given = self._backend.run_rounds(calls, heads.drafter, heads.drafter_head, turns, heads.exits)
        else:
            given = self._backend.run_rounds(calls, turns=turns)
        for done in given:
            settled = [_settled(*pair) for pair in zip(wanted, done.texts, strict=True)]
            yield Turn(settled, _counted(clock, done))
            clock = Clock()

    def _call(self, wanted: Wanted) -> RoundCall:
        sequence, draft, tree = wanted
        request, state = sequence.request, sequence.state
        copies: CopyCall | None = None
        drafts: RoundDrafts | None = None
        if tree is None and draft.length:
            behind = _behind_copies(draft)
            if behind is not draft and self._copier is not None:
                copies = self._copier.wanted(draft)
            if behind is not None and behind.length:
                drafts = self._makers[type(behind.source)].wanted(behind, state, request.sampling)
        return RoundCall(state, request.sampling, request.eos, sequence.remaining, drafts, copies)


def _behind_copies(draft: Draft) -> Draft | None:
    """What there is beside copies, or instead of them."""
    return draft.otherwise if type(draft.source) is NgramLookup else draft


def _counted(clock: Clock, done: RoundTurn) -> Clock:
    clock.draft += done[1]
    clock.draft_head += done[2]
    clock.verify += done[3]
    clock.head += done[4]
    return clock


def _settled(wanted: Wanted, text: RoundText) -> Settled:
    sequence, draft, tree = wanted
    tokens, accepted, confidences, depth, copied, exits = text
    if tree is not None:
        entry = round_of(sequence.id, tokens, tree, [tree.slots.index(slot) for slot in accepted])
    else:
        first = len(sequence.text)  # the slot of the first draft
        path = tuple([slot - first for slot in accepted])
        made = draft if copied else _behind_copies(draft) or draft
        entry = drafted_round(sequence.id, made.source, tokens, path, confidences, depth, exits)
    return Settled(sequence, entry, sequence.end_after(tokens), None)
