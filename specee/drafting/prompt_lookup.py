"""Drafts copied from the text itself: what followed the latest tokens when they last occurred."""

from __future__ import annotations

from collections.abc import Sequence as Seq

from specee.clock import Clock
from specee.drafting.drafter import States
from specee.drafting.tree import DraftTree
from specee.policies import DraftCost, DraftSource, NgramLookup
from specee.policies.checks import check_lookup


class NgramIndex:
    """Where each n-gram of a growing text occurred last, and what followed it.

    A repeated n-gram counts how many times in a row the same token followed; by the rule of succession the
    next time is the same with probability (count + 1) / (count + 2).
    """

    def __init__(self, source: NgramLookup) -> None:
        self.source = source
        self._lengths = range(source.longest, source.shortest - 1, -1)
        self._found: dict[tuple[int, ...], tuple[int, int]] = {}  # n-gram -> where it ends, count
        self._indexed = 0  # n-grams that end before this position are known

    def update(self, text: Seq[int]) -> None:
        """Learn what was added. The latest token has no successor yet and waits."""
        for end in range(max(self._indexed, 1), len(text)):
            for length in self._lengths:
                if length <= end:
                    gram = tuple(text[end - length : end])
                    before, count = self._found.get(gram, (0, 0))
                    same = before > 0 and text[before] == text[end]
                    self._found[gram] = (end, count + 1 if same else 1)
        self._indexed = max(self._indexed, len(text))

    def lookup(self, text: Seq[int], length: int) -> tuple[list[int], float]:
        """Up to ``length`` tokens that may follow ``text``, and how likely the first one is; none if nothing.

        A copy that reaches the end of the text goes on with what it has copied, as repetition does.
        """
        for size in self._lengths:
            found = self._found.get(tuple(text[len(text) - size :])) if size <= len(text) else None
            if found is not None:
                begin, count = found
                period = len(text) - begin
                copied = list(text[begin : begin + length])
                while len(copied) < length:
                    copied.append(copied[len(copied) - period])
                return copied, (count + 1) / (count + 2)
        return [], 0.0


class PromptLookupDrafter:
    """An index for each sequence and kind of lookup."""

    def __init__(self) -> None:
        self._indices: dict[int, list[NgramIndex]] = {}

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
                index = self._index(tree)
                index.update(tree.text)
                tokens, confidence = index.lookup(tree.text, tree.draft.length)
                if tokens:
                    tree.extend(tokens, confidence)
                tree.close()

    def _index(self, tree: DraftTree) -> NgramIndex:
        """A sequence has hardly more than one; to hash what names a source would take longer."""
        source = tree.draft.source
        assert isinstance(source, NgramLookup)
        known = self._indices.setdefault(tree.draft.sequence, [])
        for index in known:
            if index.source == source:
                return index
        known.append(NgramIndex(source))
        return known[-1]
