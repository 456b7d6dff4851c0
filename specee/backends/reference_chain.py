"""A chain of drafts by the reference backend's drafter block: catch up, then a token at a time."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Seq

from torch import Tensor

from specee.backends.protocol import ChainCall, FittedDrafter
from specee.backends.reference_drafter import ReferenceColumn, ReferenceDrafter, checked_block
from specee.backends.reference_sequence import ReferenceSequence
from specee.errors import RowError
from specee.types import ModelConfig, Sampling

Embed = Callable[[int], Tensor]
Draw = Callable[[Tensor, int, Callable[[], Seq[int]], Sampling], tuple[int, float]]
"""(a state, how long the text is, that text, sampling): the token after it, and its confidence."""


class ReferenceChain:
    """One call of :meth:`.Backend.draft_chains`, checked."""

    def __init__(
        self, drafter: FittedDrafter, sequence: ReferenceSequence, call: ChainCall, config: ModelConfig
    ) -> None:
        self._drafter, self._column = checked_block(drafter, call.column, config)
        self._sequence, self._call = sequence, call
        self._last = sequence.length - 1
        self._check(config.num_layers)

    def _check(self, layers: int) -> None:
        sequence, call, last = self._sequence, self._call, self._last
        if call.length < 1:
            raise RowError(f"a chain of {call.length} drafts: give 1 or more")
        if sequence.speculative:
            raise RowError("a drafter drafts from the text alone: commit or drop the speculative rows first")
        done = [sequence.row(slot).done for slot in range(max(last - 1, 0), last + 1)]
        if last < 1 or done[1] == layers or done[0] < layers or sequence.kept < 1:
            raise RowError(
                "a drafter needs the states of the position before the newest one, which alone is not "
                "complete: keep() the layers that it reads, and advance all positions but the last"
            )
        for layer in self._drafter.layers:
            sequence.kept_state(last - 1, layer)
        if last + call.length > self._column.capacity:
            raise RowError(
                f"a drafter's column of {self._column.capacity} positions has no room for {call.length} "
                f"drafts behind position {last}: make it as long as the sequence"
            )

    def run(self, embed: Embed, draw: Draw) -> tuple[list[int], list[float]]:
        """Tokens and confidences."""
        state = catch_up(self._drafter, self._column, self._sequence, self._last, embed)
        tokens: list[int] = []
        confidences: list[float] = []
        while True:
            count = self._last + 1 + len(tokens)
            token, confidence = draw(state, count, lambda: self._text(tokens), self._call.sampling)
            tokens.append(token)
            confidences.append(confidence)
            if len(tokens) == self._call.length or confidence < self._call.stop_below:
                break
            state = self._drafter.row(self._column, self._last + len(tokens), embed(token), state)
        self._column.cut(self._column.length)  # drafts left keys and values, and no tokens
        return tokens, confidences

    def _text(self, drafts: Seq[int]) -> list[int]:
        return [*self._sequence.tokens(0, self._last + 1), *drafts]


def catch_up(
    drafter: ReferenceDrafter, column: ReferenceColumn, sequence: ReferenceSequence, last: int, embed: Embed
) -> Tensor:
    """What the block gives for position ``last``, with all before it that can be had in the column."""
    first = cut_to_text(column, sequence, last)

    def states(position: int) -> list[Tensor]:
        return [sequence.kept_state(position - 1, layer) for layer in drafter.layers]

    return drafter.behind_text(column, first, sequence.tokens(first, last + 1), states, embed)


def cut_to_text(column: ReferenceColumn, sequence: ReferenceSequence, last: int) -> int:
    """The first position up to ``last`` that the column lacks; it begins where it has all that it can."""
    text = sequence.tokens(column.first, last)
    same = min(len(text), column.length)
    if column.tokens[:same] != text[:same]:
        same = next(at for at in range(same) if column.tokens[at] != text[at])
    column.cut(same)
    able = last - sequence.kept + 1
    if column.first + same < able or column.first > last:
        column.cut(0)
        column.first = able
    return column.first + column.length
