"""Rounds in which Python has no say after the plan: one call of the backend drafts, verifies and commits."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence as Seq
from typing import NamedTuple

from specee.backends.protocol import Backend, ChainCall, RoundCall, RoundText, TreeCall
from specee.clock import Clock
from specee.drafting import Drafter, DraftHeads, DraftTree
from specee.drafting.drafter_block import BlockDrafter
from specee.drafting.drafter_tree import TreeDrafter
from specee.engine.sequence import ActiveSequence
from specee.engine.settled import Settled, drafted_round, round_of
from specee.policies import Draft, DraftSource, Round

_MAKERS = (BlockDrafter, TreeDrafter)


class Wanted(NamedTuple):
    """A sequence and its draft. ``tree``: what was drafted already, None where the backend is to draft."""

    sequence: ActiveSequence
    draft: Draft
    tree: DraftTree | None


class NativeRounds:
    """Carries them out. Sequences that a user's code watches are not for it."""

    def __init__(
        self, backend: Backend, heads: DraftHeads, drafters: Mapping[type[DraftSource], Drafter]
    ) -> None:
        self._backend, self._heads = backend, heads
        self._makers: dict[type[DraftSource], BlockDrafter | TreeDrafter] = {}
        for kind, drafter in drafters.items():
            # A class derived from one of these may draft otherwise.
            if isinstance(drafter, _MAKERS) and type(drafter) in _MAKERS:
                self._makers[kind] = drafter

    def makes(self, draft: Draft) -> bool:
        """Whether the backend can draft it by itself."""
        return draft.otherwise is None and type(draft.source) in self._makers

    def plain(self, sequences: Seq[ActiveSequence], clock: Clock) -> list[Settled]:
        """The same without drafts, in most steps of most texts: the fewer calls the better."""
        calls = [
            RoundCall(one.state, one.request.sampling, one.request.eos, one.remaining) for one in sequences
        ]
        texts, _, layers, head = self._backend.run_rounds(calls)
        clock.verify += layers
        clock.head += head
        return [
            Settled(sequence, Round(sequence.id, text[0]), sequence.end_after(text[0]), None)
            for sequence, text in zip(sequences, texts, strict=True)
        ]

    def run(self, wanted: Seq[Wanted], clock: Clock) -> list[Settled]:
        """Text that counts when the caller says so; the rows are it already."""
        calls = [self._call(one) for one in wanted]
        if True in [call.drafts is not None for call in calls]:
            made = self._backend.run_rounds(calls, self._heads.drafter, self._heads.drafter_head)
        else:
            made = self._backend.run_rounds(calls)
        texts, draft, layers, head = made
        clock.draft += draft
        clock.verify += layers
        clock.head += head
        return [_settled(*pair) for pair in zip(wanted, texts, strict=True)]

    def _call(self, wanted: Wanted) -> RoundCall:
        sequence, draft, tree = wanted
        request, state = sequence.request, sequence.state
        drafts: ChainCall | TreeCall | None = None
        if tree is None and draft.length:
            drafts = self._makers[type(draft.source)].wanted(draft, state, request.sampling)
        return RoundCall(state, request.sampling, request.eos, sequence.remaining, drafts)


def _settled(wanted: Wanted, text: RoundText) -> Settled:
    sequence, draft, tree = wanted
    tokens, accepted, confidences, depth = text
    if tree is not None:
        entry = round_of(sequence.id, tokens, tree, [tree.slots.index(slot) for slot in accepted])
    else:
        first = len(sequence.text)  # the slot of the first draft
        path = tuple([slot - first for slot in accepted])
        entry = drafted_round(sequence.id, draft.source, tokens, path, confidences, depth)
    return Settled(sequence, entry, sequence.end_after(tokens), None)
