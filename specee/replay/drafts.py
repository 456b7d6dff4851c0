"""Drafts out of a record: what the sources of a plan would have drafted, and how much of it is right."""

from __future__ import annotations

from typing import NamedTuple

from specee.ngrams import NgramIndex
from specee.policies import Draft, DraftSource, ExitLayer, NgramLookup
from specee.replay.trace import Text, column


class Drafted(NamedTuple):
    """``made`` drafts of ``source``, of which the first ``right`` are the full model's."""

    source: DraftSource
    made: int
    right: int
    confidences: tuple[float, ...]

    @property
    def layer(self) -> int:
        """The exit layer, 0 for copies, which need none."""
        return self.source.layer if isinstance(self.source, ExitLayer) else 0


class RecordedDrafts:
    """Of one text.

    What a layer says after a draft that was wrong is not recorded. It stands to reason that it would have
    been as sure as it was at that place of the text; the draft counts as wrong.
    """

    def __init__(self, text: Text) -> None:
        self._text = text
        self._columns: dict[int, tuple[list[float], list[float]]] = {}
        self._indices: dict[NgramLookup, NgramIndex] = {}

    def draft(self, length: int, wish: Draft) -> Drafted | None:
        """What comes of ``wish`` after the first ``length`` tokens; None for nothing.

        ``length`` never shrinks from call to call. A wish for no tokens turns to nothing else.
        """
        turn: Draft | None = wish
        while turn is not None and turn.length > 0:
            if isinstance(turn.source, ExitLayer):
                return self._layer(length, turn, turn.source)
            if isinstance(turn.source, NgramLookup) and (found := self._copy(length, turn, turn.source)):
                return found
            turn = turn.otherwise
        return None

    def _layer(self, length: int, wish: Draft, source: ExitLayer) -> Drafted:
        matches, confidences = self._column(source.layer)
        begin = length - 1 - self._text.first
        end = begin
        while end < begin + wish.length:
            end += 1
            if confidences[end - 1] < wish.stop_below:
                break
        right = next((i for i in range(begin, end) if not matches[i]), end) - begin
        return Drafted(source, end - begin, right, tuple(confidences[begin:end]))

    def _copy(self, length: int, wish: Draft, source: NgramLookup) -> Drafted | None:
        text = self._text.words
        index = self._indices.get(source)
        if index is None:
            index = self._indices[source] = NgramIndex(source.longest, source.shortest)
        index.grow(text[index.length : length])
        tokens, confidence = index.lookup(wish.length)
        if not tokens:
            return None
        if confidence < wish.stop_below:
            del tokens[1:]
        count = len(tokens)
        right = next((i for i in range(count) if tokens[i] != text[length + i]), count)
        return Drafted(source, count, right, (confidence,) * count)

    def _column(self, layer: int) -> tuple[list[float], list[float]]:
        if layer not in self._columns:
            self._columns[layer] = column(self._text.matches, layer), column(self._text.confidences, layer)
        return self._columns[layer]
