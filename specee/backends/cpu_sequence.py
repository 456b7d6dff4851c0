"""Rows and KV cache of the C++ backend."""

from __future__ import annotations

from collections.abc import Sequence as Seq

from specee import _cpu
from specee.backends.own import own
from specee.backends.protocol import Floats, SequenceState
from specee.errors import RowError
from specee.types import RowInfo


class CpuSequence:
    """Rows and KV cache of one sequence, held by the engine."""

    __slots__ = ("native",)

    def __init__(self, native: _cpu.Sequence) -> None:
        self.native = native

    @property
    def length(self) -> int:
        """See :meth:`.SequenceState.length`."""
        return self.native.length

    @property
    def capacity(self) -> int:
        """See :meth:`.SequenceState.capacity`."""
        return self.native.capacity

    @property
    def cache_bytes(self) -> int:
        """Bytes reserved for keys and values."""
        return self.native.cache_bytes

    @property
    def frontier(self) -> tuple[int, ...]:
        """See :meth:`.SequenceState.frontier`."""
        return self.native.frontier

    @property
    def speculative(self) -> tuple[int, ...]:
        """See :meth:`.SequenceState.speculative`."""
        return tuple(self.native.speculative)

    def row(self, slot: int) -> RowInfo:
        """See :meth:`.SequenceState.row`."""
        return RowInfo(*self.native.row(slot))

    def append(self, tokens: Seq[int]) -> range:
        """See :meth:`.SequenceState.append`."""
        first = self.native.append(tokens)
        return range(first, first + len(tokens))

    def branch(self, tokens: Seq[int], parents: Seq[int] | None = None, root: int | None = None) -> list[int]:
        """See :meth:`.SequenceState.branch`."""
        return self.native.branch(tokens, parents, root)

    def prune(self, rows: Seq[int]) -> None:
        """See :meth:`.SequenceState.prune`."""
        self.native.prune(rows)

    def commit(self, path: Seq[int]) -> None:
        """See :meth:`.SequenceState.commit`."""
        self.native.commit(path)

    def rollback(self, n: int) -> None:
        """See :meth:`.SequenceState.rollback`."""
        self.native.rollback(n)

    def keep(self, layers: Seq[int], positions: int) -> None:
        """See :meth:`.SequenceState.keep`."""
        self.native.keep(layers, positions)

    @property
    def kept(self) -> int:
        """See :meth:`.SequenceState.kept`."""
        return self.native.kept

    def kv(self, layer: int, slots: Seq[int]) -> tuple[Floats, Floats]:
        """See :meth:`.SequenceState.kv`."""
        return self.native.kv(layer, slots)


def native_sequence(sequence: SequenceState) -> _cpu.Sequence:
    """The engine's, if it is one of its own. Raises RowError."""
    return own(CpuSequence, sequence, "sequences", "this backend's sequence()", RowError).native
