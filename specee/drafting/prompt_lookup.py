"""Drafts copied from the text itself: what followed the latest tokens when they last occurred."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Seq
from typing import TypeVar

from specee.backends.protocol import Backend, CopyCall, CopyIndex
from specee.clock import Clock
from specee.drafting.drafter import States
from specee.drafting.tree import DraftTree
from specee.ngrams import NgramIndex
from specee.policies import Draft, DraftCost, DraftSource, NgramLookup
from specee.policies.checks import check_lookup

T = TypeVar("T")


class PromptLookupDrafter:
    """An index for each sequence and kind of lookup: the backend's own where it copies by itself."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._indices: dict[int, list[tuple[NgramLookup, NgramIndex]]] = {}
        self._native: dict[int, list[tuple[NgramLookup, CopyIndex]]] = {}

    def check(self, source: DraftSource) -> None:
        """See :meth:`.Drafter.check`."""
        assert isinstance(source, NgramLookup)
        check_lookup(source)

    def cost(self, source: DraftSource) -> DraftCost:
        """See :meth:`.Drafter.cost`: nothing of the model runs."""
        return DraftCost(0, 0.0)

    def reads(self, source: DraftSource) -> States:
        """See :meth:`.Drafter.reads`."""
        return States()

    def draft(self, trees: Seq[DraftTree], clock: Clock) -> None:
        """See :meth:`.Drafter.draft`."""
        for tree in trees:
            if tree.open:
                index = _known(self._indices, tree.draft, NgramIndex)
                index.update(tree.text)
                tokens, confidence = index.lookup(tree.draft.length)
                if tokens:
                    tree.extend(tokens, confidence)
                tree.close()

    def wanted(self, draft: Draft) -> CopyCall:
        """The copies that a plan asks for."""
        index = _known(self._native, draft, self._backend.copies)
        return CopyCall(index, draft.length, draft.stop_below)


def _known(known: dict[int, list[tuple[NgramLookup, T]]], draft: Draft, make: Callable[[int, int], T]) -> T:
    """A sequence has hardly more than one; to hash what names a source would take longer."""
    source = draft.source
    assert isinstance(source, NgramLookup)
    own = known.setdefault(draft.sequence, [])
    for named, index in own:
        if named == source:
            return index
    own.append((source, make(source.longest, source.shortest)))
    return own[-1][1]
