"""The part of a drafter block in a decode round: text that it has not seen, then a row behind each draft."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence as Seq
from dataclasses import dataclass

import torch
from torch import Tensor

from specee.backends.cuda_block import BlockRun, NewRows
from specee.backends.cuda_drafter import CudaColumn, CudaDrafter
from specee.cuda.block_record import BLOCK_PLAN, UnseenText, encode_blocks
from specee.cuda.block_round import BlockState, newest_rows, text_rows
from specee.cuda.launcher import Launcher
from specee.cuda.program import Recorder
from specee.cuda.record import ROUND_TOKENS
from specee.cuda.round import ChainRows, RoundState
from specee.cuda.rows import embed_rows
from specee.cuda.tiles import MAX_LINEAR_ROWS, TILE_ROWS
from specee.errors import ConfigurationError


@dataclass(frozen=True)
class BlockDrafts:
    """A block that drafts for all sequences of a round, and the column of each."""

    drafter: CudaDrafter
    columns: tuple[CudaColumn, ...]


@dataclass(frozen=True)
class Unseen:
    """Text that a column lacks, the newest position last; states of the position before each, by layer."""

    text: UnseenText
    states: Seq[Seq[Tensor]]


def longest_unseen(sequences: int, drafts: int) -> int:
    """How many positions of each text a round takes through the block at most.

    After a round as many as it has drafts, and one; products take eight rows at the price of one.
    """
    return min(ROUND_TOKENS, MAX_LINEAR_ROWS // sequences, max(drafts + 1, TILE_ROWS))


class BlockPart:
    """Arrays and launches. ``each``: how long text that a block has not seen is at most."""

    def __init__(self, of: BlockDrafts, state: RoundState, drafts: int, device: torch.device) -> None:
        drafter, count = of.drafter, len(of.columns)
        self._block, self._embed = drafter.block, drafter.embedding
        self._whole, self.each, self._layers = state, longest_unseen(count, drafts), len(drafter.layers)
        each = self.each
        caches = [column.cache for column in of.columns]
        self._text_runs = [BlockRun(one, at * each, (at + 1) * each) for at, one in enumerate(caches)]
        self._newest_runs = [BlockRun(one, at, at + 1) for at, one in enumerate(caches)]

        def zeros(*shape: int, dtype: torch.dtype = torch.int32) -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=device)

        self._state = BlockState(zeros(BLOCK_PLAN.itemsize, dtype=torch.uint8), zeros(1))
        self._text = self._block.text_rows(*zeros(3, count * each))
        longest = max(column.capacity for column in of.columns)
        self._newest = self._block.new_rows(zeros(5, count), zeros(count, 1), longest)  # chains have no tails

    @property
    def x(self) -> Tensor:
        """What drafts follow from, (sequences, hidden) fp32."""
        return self._newest.x

    def before_drafts(self, recorder: Recorder) -> None:
        """The text that columns lack, up to the newest position."""
        rows = self._text
        text_rows(recorder, self._state, rows.tokens, rows.places, rows.slots, self.each)
        with recorder.when(self._state.text_before()):
            embed_rows(recorder, rows.tokens, self._embed, rows.embedding)
            self._block.remember(recorder, rows, self._text_runs)
        self._block.text_row(recorder, self._enter(recorder), self._newest_runs)

    def behind_draft(self, recorder: Recorder) -> None:
        """The row of each sequence's newest draft."""
        self._block.draft_row(recorder, self._enter(recorder), self._newest_runs)

    def _enter(self, launcher: Launcher) -> NewRows:
        rows = self._newest
        fields = ChainRows(rows.tokens, rows.places, rows.lengths, rows.ends, rows.slots)
        newest_rows(launcher, self._state, self._whole, fields)
        embed_rows(launcher, rows.tokens, self._embed, rows.embedding)
        return rows

    def put(self, unseen: Seq[Unseen]) -> tuple[Tensor, bytes]:
        """The states to where the round reads them; its record, and where that goes.

        Raises ConfigurationError for more text than there is room for.
        """
        longest = max(len(one.text.tokens) for one in unseen)
        if longest > self.each:
            raise ConfigurationError(
                f"{longest} tokens that a block has not seen: allowed are 1..{self.each} in a round of "
                f"{len(unseen)} sequences; take older ones through it before the round"
            )
        for at in range(self._layers):
            torch.stack(list(self._padded(unseen, at)), out=self._text.states[at])
            torch.stack([one.states[-1][at] for one in unseen], out=self._newest.states[at])
        return self._state.plan, encode_blocks([one.text for one in unseen])

    def _padded(self, unseen: Seq[Unseen], layer: int) -> Iterator[Tensor]:
        """States before each row of text: those before the newest are once more before what fills up."""
        for one in unseen:
            for at in range(self.each):
                yield one.states[min(at, len(one.states) - 1)][layer]
