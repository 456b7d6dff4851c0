"""The drafter block on a device: rows through it (:mod:`specee.backends.cuda_block`), matrices as they are.

Keys and values of a column are in slots of a cache, which ``memory`` names: rows may be put into any order,
as trees do, and attend to a path through them. Rows of a column are the same launches over the same arrays,
but for numbers that kernels read; of rows of text that come together, up to 64 go through the block at once.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable
from collections.abc import Sequence as Seq
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from specee.backends.cuda_block import Block, BlockRun, NewRows, TextRows
from specee.backends.cuda_repeats import Graphs, Repeats
from specee.backends.cuda_weights import Matrix, on_device, packed_blocks
from specee.backends.cuda_workspace import padded_depth
from specee.backends.drafter_parts import stored_rows
from specee.backends.protocol import DraftFormat, Floats
from specee.backends.reference_drafter import ReferenceColumn, ReferenceDrafter
from specee.cuda.launcher import Launcher
from specee.cuda.packing import PackedWeights
from specee.cuda.rotation import Cache
from specee.cuda.rows import embed_rows
from specee.cuda.tiles import MAX_LINEAR_ROWS, TILE_UNIT
from specee.errors import CapacityError, ConfigurationError, OutOfMemoryError
from specee.models.drafter_parts import DrafterParts
from specee.types import KVDtype, ModelConfig

_FEED_FORWARD = ("gate", "up")
_NUMBERS = 5  # of a new row, before the slots of its path
_TEXT_NUMBERS = 3
CheckRoom = Callable[[int, str, str], None]
"""(bytes, what for, advice): raises OutOfMemoryError where there are not so many."""


@dataclass(frozen=True)
class _Room:
    """What rows need, and between kernels. Each column has its own: two threads may draft at once.

    ``numbers`` int32 of the ``row`` that is new: token, place, slot, length and end of its path, then its
    slots from that length on. ``text_numbers`` int32 (3, 64) of rows of text: tokens, places, slots.
    """

    numbers: Tensor
    row: NewRows
    text_numbers: Tensor
    text: TextRows


@dataclass(eq=False)
class CudaColumn(ReferenceColumn):
    """Keys and values of positions in ``cache``, the slot of each in ``memory``; ``used`` slots are taken."""

    cache: Cache = field(kw_only=True)
    room: _Room = field(kw_only=True)
    used: int = 0
    rows: Repeats = field(kw_only=True)  # by what they are, and how many slots or rows of text are sent

    def cut(self, length: int) -> None:
        """Forget all but the first ``length``, which are in the first slots."""
        super().cut(length)
        self.used = len(self.memory)

    def take(self) -> int:
        """A slot, which joins ``memory``. Raises CapacityError."""
        if self.used >= self.capacity:
            raise CapacityError(
                f"a drafter's column of {self.capacity} positions is full: make it as long as the sequence"
            )
        self.memory.append(self.used)
        self.used += 1
        return self.used - 1

    def tail(self) -> list[int]:
        """Slots of ``memory`` behind those that are in the slot of their own number."""
        return self.memory[bisect_left(range(len(self.memory)), 1, key=lambda at: self.memory[at] != at) :]


class CudaDrafter(ReferenceDrafter):
    """See :meth:`.Backend.drafter`; ``embedding`` is the model's.

    Raises ConfigurationError, OutOfMemoryError.
    """

    def __init__(
        self,
        config: ModelConfig,
        parts: DrafterParts,
        stored: DraftFormat,
        device: torch.device,
        launcher: Launcher,
        *,
        embedding: Matrix,
        graphs: Graphs,
        check_room: CheckRoom,
    ) -> None:
        self._launcher, self.graphs, self._check_room = launcher, graphs, check_room
        self.embedding = embedding
        super().__init__(config, parts, stored, device)
        own = (config, len(self.layers), self._matrices, self._vectors, self._speeds)
        self.block = Block(*own, plain=self._plain)

    def _matrix(self, name: str, array: Floats, stored: DraftFormat) -> PackedWeights:
        """In the kernels' layout; the feed-forward part's width filled up with zeros to whole blocks."""
        if name in _FEED_FORWARD and len(array) % TILE_UNIT:
            array = np.pad(array, ((0, -len(array) % TILE_UNIT), (0, 0)))
        packed = packed_blocks(stored_rows(array, stored), stored)
        size = packed.data.nbytes + packed.scales.nbytes
        self._check_room(size, f"{name} of a drafter block", "draft without it")
        return on_device(packed, self._device)

    def column(self, capacity: int, kv_dtype: KVDtype, *, poison: bool = False) -> CudaColumn:
        """See :meth:`.FittedDrafter.column`. Raises CapacityError, ConfigurationError, OutOfMemoryError."""
        plain = super().column(capacity, kv_dtype)
        if plain.dtype == torch.float32:
            raise ConfigurationError(
                f"kv_dtype {kv_dtype!r} of a column on backend 'cuda': allowed are 'bf16', 'fp16'"
            )
        shape = (capacity, self.config.num_kv_heads, self.config.head_dim)
        what, advice = f"a drafter's column of {capacity} positions", "ask for a shorter context"
        rows = self.block.new_bytes(1, capacity) + self.block.text_bytes(MAX_LINEAR_ROWS)
        self._check_room(4 * math.prod(shape) + 4 * padded_depth(capacity) + rows, what, advice)
        fill = math.nan if poison else 0.0
        try:
            keys, values = (torch.full(shape, fill, dtype=plain.dtype, device=self._device) for _ in range(2))
            room = self._room(capacity)
        except RuntimeError as error:
            raise OutOfMemoryError(f"{what} does not fit in memory ({error}); {advice}") from error
        repeats = Repeats(self._launcher, self.graphs)
        return CudaColumn(self, capacity, plain.dtype, cache=Cache(keys, values), room=room, rows=repeats)

    def _room(self, capacity: int) -> _Room:
        most = padded_depth(capacity)
        numbers = torch.zeros(_NUMBERS + most, dtype=torch.int32, device=self._device)
        text = torch.zeros(_TEXT_NUMBERS, MAX_LINEAR_ROWS, dtype=torch.int32, device=self._device)
        row = self.block.new_rows(numbers[:_NUMBERS, None], numbers[None, _NUMBERS:], capacity)
        return _Room(numbers, row, text, self.block.text_rows(*text))

    def behind_text(
        self,
        column: ReferenceColumn,
        position: int,
        tokens: Seq[int],
        states: Callable[[int], Seq[Tensor]],
        embed: Callable[[int], Tensor],
    ) -> Tensor:
        """What the block gives at the last of some positions; of the others it is not asked for."""
        assert isinstance(column, CudaColumn)
        last = len(tokens) - 1
        for begin in range(0, last, MAX_LINEAR_ROWS):
            end = min(begin + MAX_LINEAR_ROWS, last)
            before = [states(position + at) for at in range(begin, end)]
            self._remember(column, position + begin, tokens[begin:end], before)
        state = self.text_row(column, position + last, embed(tokens[last]), states(position + last))
        column.tokens += tokens
        return state

    def _remember(
        self, column: CudaColumn, position: int, tokens: Seq[int], states: Seq[Seq[Tensor]]
    ) -> None:
        """Keys and values of up to 64 rows of text, the first one at ``position``. Raises CapacityError."""
        room, count = column.room, len(tokens)
        sent = padded_depth(count)
        first, slots = position - column.first, [column.take() for _ in tokens]
        numbers = np.zeros((_TEXT_NUMBERS, MAX_LINEAR_ROWS), np.int32)
        numbers[2] = -1  # rows that only fill up are stored nowhere
        numbers[:, :count] = tokens, range(first, first + count), slots
        room.text_numbers.copy_(torch.from_numpy(numbers))
        for at in range(len(self.layers)):
            torch.stack([own[at] for own in states], out=room.text.states[at, :count])
        column.rows.run(("text", sent), lambda launcher: self._launch_text(launcher, column, sent))

    def _launch_text(self, launcher: Launcher, column: CudaColumn, sent: int) -> None:
        rows = column.room.text.cut(sent)
        embed_rows(launcher, rows.tokens, self.embedding, rows.embedding)
        self.block.remember(launcher, rows, [BlockRun(column.cache, 0, sent)])

    def row(self, column: ReferenceColumn, position: int, embedding: Tensor, before: Tensor) -> Tensor:
        """What the block gives at ``position``. Raises CapacityError."""
        own, sent = self._send(column, position, embedding)
        own.room.row.x.copy_(before[None])
        return self._run(own, sent, behind_text=False)

    def text_row(
        self, column: ReferenceColumn, position: int, embedding: Tensor, states: Seq[Tensor]
    ) -> Tensor:
        """The same behind text. Raises CapacityError."""
        assert len(states) == len(self.layers)
        own, sent = self._send(column, position, embedding)
        torch.stack(list(states), out=own.room.row.states[:, 0])
        return self._run(own, sent, behind_text=True)

    def _send(self, column: ReferenceColumn, position: int, embedding: Tensor) -> tuple[CudaColumn, int]:
        """Before any launch of the row, as a transfer waits for what is under way; how many slots it took."""
        assert isinstance(column, CudaColumn)
        slot, end = column.take(), len(column.memory)
        tail = column.tail()
        sent = padded_depth(len(tail))
        path = [end - len(tail), end, *tail, *[0] * (sent - len(tail))]
        numbers = torch.tensor([0, position - column.first, slot, *path], dtype=torch.int32)
        column.room.numbers[: len(numbers)].copy_(numbers)
        column.room.row.embedding.copy_(embedding[None])
        return column, sent

    def _run(self, column: CudaColumn, sent: int, *, behind_text: bool) -> Tensor:
        row = column.room.row

        def launch(launcher: Launcher) -> None:
            through = self.block.text_row if behind_text else self.block.draft_row
            through(launcher, replace(row, tails=row.tails[:, :sent]), [BlockRun(column.cache, 0, 1)])

        column.rows.run(("newest" if behind_text else "draft", sent), launch)
        return row.x[0].clone()
