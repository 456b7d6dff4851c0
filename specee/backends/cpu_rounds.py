"""Rounds of the C++ backend, as the engine takes them."""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Sequence as Seq
from typing import TypeAlias

from specee import _cpu
from specee.backends.cpu_drafter import native_column, native_head
from specee.backends.cpu_sequence import CpuSequence, native_sequence
from specee.backends.own import own
from specee.backends.protocol import (
    ChainCall,
    CopyCall,
    ExitChainCall,
    LayerChainCall,
    RoundCall,
    RoundDrafts,
    SequenceState,
)
from specee.errors import RowError
from specee.types import Sampling

_Chain: TypeAlias = tuple[_cpu.DrafterColumn, int, float]
_Tree: TypeAlias = tuple[_cpu.DrafterColumn, int, int, int, int, float, float]
_Layer: TypeAlias = tuple[int, _cpu.DraftHead | None, int, float]
_Exits: TypeAlias = tuple[_cpu.DrafterColumn, int, float, Seq[int], float]
_Drafts: TypeAlias = _Chain | _Tree | _Layer | _Exits
_Copies: TypeAlias = tuple[_cpu.NgramIndex, int, float]
NativeRound: TypeAlias = tuple[_cpu.Sequence, Sampling, Collection[int], int, _Drafts | None, _Copies | None]


def native_rounds(calls: Seq[RoundCall]) -> list[NativeRound]:
    """Raises RowError, ConfigurationError for what is another backend's.

    Once a step, with cold caches: a function that need not be called is a few microseconds.
    """
    return [
        (
            sequence.native if type(sequence) is CpuSequence else native_sequence(sequence),
            sampling,
            ends,
            remaining,
            None if drafts is None else _drafts(drafts, sequence),
            None if copies is None else _copies(copies),
        )
        for sequence, sampling, ends, remaining, drafts, copies in calls
    ]


def _copies(call: CopyCall) -> _Copies:
    index = own(_cpu.NgramIndex, call.ngrams, "indices of a text", "this backend's copies()")
    return index, call.length, call.stop_below


def _drafts(call: RoundDrafts, sequence: SequenceState) -> _Drafts:
    if call.sequence is not sequence:
        raise RowError("a round drafts for another sequence: give it drafts of its own")
    if isinstance(call, LayerChainCall):
        return call.layer, native_head(call.head), call.length, call.stop_below
    column = native_column(call.column)
    if isinstance(call, ChainCall):
        return column, call.length, call.stop_below
    if isinstance(call, ExitChainCall):
        return column, call.length, call.stop_below, call.layers, call.threshold
    return (column, call.nodes, call.depth, call.width, call.children, call.stop_below, call.deepen_from)
