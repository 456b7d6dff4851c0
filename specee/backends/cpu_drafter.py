"""The drafter block of the C++ backend."""

from __future__ import annotations

from collections.abc import Sequence as Seq

import numpy as np

from specee import _cpu
from specee.backends.drafter_parts import checked_parts, stored_rows
from specee.backends.own import own
from specee.backends.protocol import ChainCall, DraftFormat, DraftHead, FittedColumn, TreeCall
from specee.models.drafter_parts import DrafterParts
from specee.types import KVDtype, ModelConfig, Sampling

NativeChain = tuple[_cpu.Sequence, _cpu.DrafterColumn, int, float, Sampling]
NativeTree = tuple[_cpu.Sequence, _cpu.DrafterColumn, int, int, int, int, float, float, Sampling, int]


class CpuDrafter:
    """See :meth:`.Backend.drafter`."""

    def __init__(
        self, engine: _cpu.Engine, parts: DrafterParts, config: ModelConfig, stored: DraftFormat
    ) -> None:
        checked = checked_parts(parts, config)
        self._engine, self.layers = engine, checked.layers
        self.native = engine.drafter(checked.layers, len(checked.gate), stored, checked.plain)
        for name, array in checked.arrays():
            if name == "state_norms":
                for index, norm in enumerate(array):
                    self.native.set_part(f"state_norms.{index}", np.ascontiguousarray(norm), "F32")
            elif array.ndim == 1:
                self.native.set_part(name, array, "F32")
            else:
                self.native.set_part(name, stored_rows(array, stored), stored)
        self.native.check_complete()

    @property
    def bytes(self) -> int:
        """See :meth:`.FittedDrafter.bytes`."""
        return self.native.bytes

    def column(self, capacity: int, kv_dtype: KVDtype, *, poison: bool = False) -> _cpu.DrafterColumn:
        """See :meth:`.FittedDrafter.column`."""
        return self._engine.drafter_column(self.native, capacity, kv_dtype, poison)


def native_chains(sequences: Seq[_cpu.Sequence], calls: Seq[ChainCall]) -> list[NativeChain]:
    """As the engine takes them. Raises ConfigurationError for a column of another backend."""
    return [
        (sequence, native_column(call.column), call.length, call.stop_below, call.sampling)
        for sequence, call in zip(sequences, calls, strict=True)
    ]


def native_trees(sequences: Seq[_cpu.Sequence], calls: Seq[TreeCall]) -> list[NativeTree]:
    """The same for trees."""
    return [
        (sequence, native_column(call.column), *call[2:])
        for sequence, call in zip(sequences, calls, strict=True)
    ]


def native_column(column: FittedColumn) -> _cpu.DrafterColumn:
    """The column, if it is one of this backend's. Raises ConfigurationError."""
    return own(_cpu.DrafterColumn, column, "columns", "its drafter's column()")


def native_head(head: DraftHead | None) -> _cpu.DraftHead | None:
    """As the engine takes it. Raises ConfigurationError for one of another backend."""
    return None if head is None else own(_cpu.DraftHead, head, "draft heads", "this backend's draft_head()")
