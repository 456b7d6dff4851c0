"""The drafter block on a device: a row at a time by the kernels of layers, matrices in blocks as they are.

The formula is the reference's (:mod:`specee.backends.reference_drafter`); rows that enter products are
quantised, as for packed weights (docs/numerics.md). Keys and values of a column are in slots of a cache,
which ``memory`` names: rows may be put into any order, as trees do, and attend to a path through them.
Rows of a column are the same launches over the same arrays, but for numbers that kernels read.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable
from collections.abc import Sequence as Seq
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from specee.backends.cuda_repeats import Graphs, Repeats
from specee.backends.cuda_weights import on_device, packed_blocks
from specee.backends.cuda_workspace import padded_depth
from specee.backends.drafter_parts import stored_rows
from specee.backends.protocol import DraftFormat, Floats
from specee.backends.reference_drafter import ReferenceColumn, ReferenceDrafter
from specee.cuda.attention import Paths, attention
from specee.cuda.attention import Workspace as Splits
from specee.cuda.launcher import Launcher
from specee.cuda.linear import QuantisedRows
from specee.cuda.packing import PackedWeights
from specee.cuda.products import multiply, norm_rows, prepare_rows, swiglu_rows
from specee.cuda.rotation import Cache, Projected, Turns, turn_angles, turn_heads
from specee.cuda.rows import add_bias, fill_paths
from specee.cuda.tiles import TILE_UNIT, attention_splits
from specee.errors import CapacityError, ConfigurationError, OutOfMemoryError
from specee.models.drafter_parts import DrafterParts
from specee.types import KVDtype, ModelConfig

_FEED_FORWARD = ("gate", "up")
_NUMBERS = 4  # of a row, before the slots of its path
CheckRoom = Callable[[int, str, str], None]
"""(bytes, what for, advice): raises OutOfMemoryError where there are not so many."""


@dataclass(frozen=True)
class _Room:
    """What one row needs, and between kernels. Each column has its own: two threads may draft at once.

    ``numbers`` int32: position, slot, length and end of the path, then its slots from that length on.
    """

    numbers: Tensor
    embedding: Tensor
    states: Tensor
    joined: QuantisedRows
    before: Tensor
    x: Tensor
    both: QuantisedRows
    normed: QuantisedRows
    queries: Tensor
    keys: Tensor
    values: Tensor
    mixed: Tensor
    attended: QuantisedRows
    gate: Tensor
    up: Tensor
    gated: QuantisedRows
    turns: Turns
    table: Tensor
    splits: Splits


@dataclass
class CudaColumn(ReferenceColumn):
    """Keys and values of positions in ``cache``, the slot of each in ``memory``; ``used`` slots are taken."""

    cache: Cache = field(kw_only=True)
    room: _Room = field(kw_only=True)
    used: int = 0
    rows: Repeats = field(kw_only=True)  # by how many slots are sent, and whether states are fused

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
    """See :meth:`.Backend.drafter`. Raises ConfigurationError, OutOfMemoryError."""

    def __init__(
        self,
        config: ModelConfig,
        parts: DrafterParts,
        stored: DraftFormat,
        device: torch.device,
        launcher: Launcher,
        *,
        graphs: Graphs,
        check_room: CheckRoom,
    ) -> None:
        self._launcher, self.graphs, self._check_room = launcher, graphs, check_room
        super().__init__(config, parts, stored, device)

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
        config = self.config
        shape = (capacity, config.num_kv_heads, config.head_dim)
        splits = 4 * attention_splits(capacity) * config.num_heads * (config.head_dim + 2)
        what, advice = f"a drafter's column of {capacity} positions", "ask for a shorter context"
        paths = 4 * (capacity + padded_depth(capacity))
        self._check_room(4 * math.prod(shape) + paths + splits, what, advice)
        fill = math.nan if poison else 0.0
        try:
            keys, values = (torch.full(shape, fill, dtype=plain.dtype, device=self._device) for _ in range(2))
            room = self._room(capacity)
        except RuntimeError as error:
            raise OutOfMemoryError(f"{what} does not fit in memory ({error}); {advice}") from error
        rows = Repeats(self._launcher, self.graphs)
        return CudaColumn(self, capacity, plain.dtype, cache=Cache(keys, values), room=room, rows=rows)

    def row(self, column: ReferenceColumn, position: int, embedding: Tensor, before: Tensor) -> Tensor:
        """What the block gives at ``position``. Raises CapacityError."""
        own, sent = self._send(column, position, embedding)
        own.room.before.copy_(before[None])
        return self._run(own, sent, fuses=False)

    def text_row(
        self, column: ReferenceColumn, position: int, embedding: Tensor, states: Seq[Tensor]
    ) -> Tensor:
        """The same behind text. Raises CapacityError."""
        if self._plain:
            return super().text_row(column, position, embedding, states)
        assert len(states) == len(self.layers)
        own, sent = self._send(column, position, embedding)
        torch.stack(list(states), out=own.room.states)
        return self._run(own, sent, fuses=True)

    def _send(self, column: ReferenceColumn, position: int, embedding: Tensor) -> tuple[CudaColumn, int]:
        """Before any launch of the row, as a transfer waits for what is under way; how many slots it took."""
        assert isinstance(column, CudaColumn)
        slot, end = column.take(), len(column.memory)
        tail = column.tail()
        sent = padded_depth(len(tail))
        numbers = [position - column.first, slot, end - len(tail), end, *tail, *[0] * (sent - len(tail))]
        column.room.numbers[: len(numbers)].copy_(torch.tensor(numbers, dtype=torch.int32))
        column.room.embedding.copy_(embedding[None])
        return column, sent

    def _run(self, column: CudaColumn, sent: int, *, fuses: bool) -> Tensor:
        def launch(launcher: Launcher) -> None:
            if fuses:
                self._fuse(launcher, column.room)
            self._launch(launcher, column, sent)

        column.rows.run((sent, fuses), launch)
        return column.room.x[0].clone()

    def _fuse(self, launcher: Launcher, room: _Room) -> None:
        hidden, eps = self.config.hidden_size, self.config.norm_eps
        for at, norm in enumerate(self._vectors["state_norms"]):
            to = _columns(room.joined, at * hidden, hidden)
            norm_rows(launcher, room.states[at : at + 1], norm, to, eps=eps)
        multiply(launcher, room.joined, self._matrices["fuse"], room.before)

    def _launch(self, launcher: Launcher, column: CudaColumn, sent: int) -> None:
        """Every launch of a row, on arrays that stand still; ``sent``: slots of its path."""
        room, hidden, eps = column.room, self.config.hidden_size, self.config.norm_eps
        self._enter(launcher, "embed_norm", room.embedding, _columns(room.both, 0, hidden))
        self._enter(launcher, "fused_norm", room.before, _columns(room.both, hidden, hidden))
        multiply(launcher, room.both, self._matrices["fc"], room.x)
        if "fc_bias" in self._vectors:
            add_bias(launcher, room.x, self._vectors["fc_bias"])
        self._enter(launcher, "attn_norm", room.x, room.normed)
        self._attend(launcher, column, sent)
        prepare_rows(launcher, room.mixed.flatten(1), room.attended)
        multiply(launcher, room.attended, self._matrices["o"], room.x, add=True)
        norm_rows(launcher, room.x, self._vectors["mlp_norm"], room.normed, eps=eps)
        multiply(launcher, room.normed, self._matrices["gate"], room.gate)
        multiply(launcher, room.normed, self._matrices["up"], room.up)
        swiglu_rows(launcher, room.gate, room.up, room.gated)
        multiply(launcher, room.gated, self._matrices["down"], room.x, add=True)

    def _attend(self, launcher: Launcher, column: CudaColumn, sent: int) -> None:
        """Attention of the row in ``normed`` over the column and itself, into ``mixed``."""
        room, config = column.room, self.config
        for name, out in (("q", room.queries), ("k", room.keys), ("v", room.values)):
            multiply(launcher, room.normed, self._matrices[name], out.flatten(1))
        at, slots, lengths, ends = (room.numbers[i : i + 1] for i in range(_NUMBERS))
        turn_angles(launcher, at, self._speeds, room.turns)
        turn_heads(
            launcher,
            Projected(room.queries),
            Projected(room.keys),
            Projected(room.values),
            room.turns,
            slots,
            column.cache,
            eps=config.norm_eps,
        )
        fill_paths(launcher, room.table, lengths, ends, room.numbers[None, _NUMBERS : _NUMBERS + sent])
        cache, paths = column.cache, Paths(room.table, ends)
        scale = 1 / math.sqrt(config.head_dim)
        attention(
            launcher, room.queries, cache.keys, cache.values, paths, room.mixed, room.splits, scale=scale
        )

    def _enter(self, launcher: Launcher, norm: str, x: Tensor, out: QuantisedRows) -> None:
        """As products take it; a plain block has no norms here."""
        if self._plain:
            prepare_rows(launcher, x, out)
        else:
            norm_rows(launcher, x, self._vectors[norm], out, eps=self.config.norm_eps)

    def _room(self, capacity: int) -> _Room:
        config = self.config
        hidden, dim, inner = config.hidden_size, config.head_dim, self._matrices["gate"].outputs
        heads, key_heads, splits = config.num_heads, config.num_kv_heads, attention_splits(capacity)
        numbers = _NUMBERS + padded_depth(capacity)
        return _Room(
            numbers=torch.zeros(numbers, dtype=torch.int32, device=self._device),
            embedding=self._floats(hidden),
            states=torch.empty(len(self.layers), hidden, device=self._device),
            joined=self._inputs(len(self.layers) * hidden),
            before=self._floats(hidden),
            x=self._floats(hidden),
            both=self._inputs(2 * hidden),
            normed=self._inputs(hidden),
            queries=self._floats(heads, dim),
            keys=self._floats(key_heads, dim),
            values=self._floats(key_heads, dim),
            mixed=self._floats(heads, dim),
            attended=self._inputs(config.q_dim),
            gate=self._floats(inner),
            up=self._floats(inner),
            gated=self._inputs(inner),
            turns=Turns(self._floats(dim // 2), self._floats(dim // 2)),
            table=torch.zeros(1, capacity, dtype=torch.int32, device=self._device),
            splits=Splits(
                self._floats(heads, splits, dim), self._floats(heads, splits), self._floats(heads, splits)
            ),
        )

    def _inputs(self, width: int) -> QuantisedRows:
        q = torch.empty(1, width, dtype=torch.int8, device=self._device)
        return QuantisedRows(q, self._floats(width // TILE_UNIT), self._floats(width // TILE_UNIT))

    def _floats(self, *shape: int) -> Tensor:
        return torch.empty(1, *shape, device=self._device)


def _columns(inputs: QuantisedRows, begin: int, count: int) -> QuantisedRows:
    """Some of one row's numbers, whole blocks of them."""
    blocks = slice(begin // TILE_UNIT, (begin + count) // TILE_UNIT)
    return QuantisedRows(inputs.q[:, begin : begin + count], inputs.scales[:, blocks], inputs.sums[:, blocks])
