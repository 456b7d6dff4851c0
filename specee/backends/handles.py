"""What a backend makes and takes back: sequences of rows, heads, blocks, predictors."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from specee.types import KVDtype, RowInfo

Floats: TypeAlias = npt.NDArray[np.float32]
Ints: TypeAlias = npt.NDArray[np.int64]


class SequenceState(Protocol):
    """Rows and KV cache of one sequence."""

    @property
    def length(self) -> int:
        """Committed positions."""

    @property
    def capacity(self) -> int:
        """Slots reserved: committed positions plus live speculative rows may not exceed it."""

    @property
    def frontier(self) -> tuple[int, ...]:
        """Committed positions done, per layer; ``num_layers`` entries, never increasing."""

    @property
    def speculative(self) -> tuple[int, ...]:
        """Slots of the live speculative rows, parents before children."""

    def row(self, slot: int) -> RowInfo:
        """The row in ``slot``. Raises RowError if there is none."""

    def append(self, tokens: Seq[int]) -> range:
        """Add committed positions (no layer done yet) and return their slots.

        Raises RowError while speculative rows are live or for a token outside the vocabulary,
        CapacityError if there is no room.
        """

    def branch(self, tokens: Seq[int], parents: Seq[int] | None = None, root: int | None = None) -> list[int]:
        """Add speculative rows and return their slots.

        ``parents[i]`` is the index *within this call* of row i's parent (less than i), or -1 for
        ``root``; None makes a chain. ``root`` is the slot of the last committed position (the
        default) or of a live speculative row. Raises RowError, CapacityError.
        """

    def prune(self, rows: Seq[int]) -> None:
        """Drop speculative rows and all their descendants. Raises RowError for a slot not live."""

    def commit(self, path: Seq[int]) -> None:
        """Make a path of speculative rows committed, and drop every other speculative row.

        ``path[0]`` must be a child of the last committed position and each next one a child of the
        one before; the cache is compacted so that position p is in slot p again. Rows may still be
        pending at any layer. An empty path drops all speculative rows. Raises RowError.
        """

    def rollback(self, n: int) -> None:
        """Drop the last ``n`` committed positions and all speculative rows. Raises RowError."""

    def keep(self, layers: Seq[int], positions: int) -> None:
        """Keep the hidden states after each of ``layers``, for :meth:`Backend.shadow`.

        ``layers``: 1..num_layers, ascending, each once; none keeps nothing. States are kept of rows whose
        first layer is computed from now on: of speculative rows, of committed ones that are not complete,
        and of the latest ``positions`` complete ones. What was kept before is forgotten, and a rollback
        brings back nothing that was let go. Raises RowError.
        """

    @property
    def kept(self) -> int:
        """How many of the latest complete committed positions, without a gap, have their states kept.

        Pending positions after them do not count and are no gap.
        """

    def kv(self, layer: int, slots: Seq[int]) -> tuple[Floats, Floats]:
        """Keys (after rotation) and values of ``slots`` at ``layer``, each widened to fp32.

        Shapes (len(slots), num_kv_heads, head_dim). For tests and export.
        Raises RowError if a slot has not done that layer.
        """


class DraftHead(Protocol):
    """A head of :meth:`Backend.draft_head`; belongs to the backend that made it."""

    @property
    def bytes(self) -> int:
        """Bytes of weights that one use reads, its adapter's included."""


class FittedColumn(Protocol):
    """What a drafter block has for one sequence: keys and values of positions, made from true states."""

    @property
    def first(self) -> int:
        """The position that the first of them belongs to; 1 or more."""

    @property
    def length(self) -> int:
        """How many positions in a row are there."""


class FittedDrafter(Protocol):
    """A drafter block of :meth:`Backend.drafter`; belongs to the backend that made it."""

    @property
    def layers(self) -> tuple[int, ...]:
        """Layers of the model whose states it reads: they have to be kept."""

    @property
    def bytes(self) -> int:
        """Bytes of weights that one draft reads, those of the head aside."""

    def column(self, capacity: int, kv_dtype: KVDtype, *, poison: bool = False) -> FittedColumn:
        """An empty column for a sequence of that many slots.

        With ``poison`` whatever drafts leave behind is NaN after each call (for tests). Raises CapacityError,
        OutOfMemoryError.
        """


class FittedExits(Protocol):
    """Predictors of :meth:`Backend.exit_predictors`; belong to the backend that made them."""

    @property
    def layers(self) -> tuple[int, ...]:
        """Those that have one, ascending."""

    @property
    def candidates(self) -> int:
        """Tokens that each row is judged by."""


class ExitRows(Protocol):
    """Rows of :meth:`Backend.exit_rows`, with what predictors saw of them; belong to their backend."""


class CopyIndex(Protocol):
    """N-grams of one text, from :meth:`Backend.copies`; belongs to the backend that made it."""
