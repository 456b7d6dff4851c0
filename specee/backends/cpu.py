"""The C++ backend: :mod:`specee._cpu` behind the protocol of :mod:`specee.backends.protocol`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Sequence as Seq

import numpy as np

from specee import _cpu, env
from specee.backends.cpu_drafter import CpuDrafter, native_chains, native_column, native_head, native_trees
from specee.backends.cpu_exits import CpuExitRows, CpuExits, native_exits, native_rows
from specee.backends.cpu_rounds import native_rounds
from specee.backends.cpu_sequence import CpuSequence, native_sequence
from specee.backends.draft_parts import checked_adapter, checked_vocabulary
from specee.backends.drafter_parts import stored_rows
from specee.backends.memory import check_room
from specee.backends.own import own
from specee.backends.protocol import (
    Answer,
    AskCall,
    ChainCall,
    DraftedTree,
    DraftFormat,
    DraftHead,
    Exit,
    ExitCall,
    ExitRows,
    Exits,
    FittedDrafter,
    FittedExits,
    Floats,
    Ints,
    RankCall,
    RoundCall,
    RoundText,
    RoundTurn,
    TreeCall,
    Work,
)
from specee.models.drafter_parts import DrafterParts
from specee.models.exit_parts import ExitParts
from specee.models.formats import made_formats
from specee.models.speculator import Adapter
from specee.models.table import Key, Slab
from specee.types import DEFAULT_KV, KVDtype, ModelConfig, Sampling, WeightFormat

_PIECE = 4096  # rows of a head that are floats at a time


class CpuBackend:
    """One model on the CPU.

    ``slabs`` must cover every tensor of ``config`` exactly once; each is packed as it comes and can be
    dropped by its maker. ``formats`` says what every matrix is stored in, and may be left out where
    ``weights`` alone says it (all but ``packed``). ``threads`` defaults to ``SPECEE_NUM_THREADS``, else
    the physical cores this process may use; ``isa`` to ``SPECEE_FORCE_ISA``, else the fastest this
    processor runs.
    Raises CheckpointError for weights that do not fit ``config``, ConfigurationError for a wrong
    ``threads`` or ``isa``, OutOfMemoryError if the weights do not fit into memory.
    """

    name = "cpu"

    def __init__(
        self,
        config: ModelConfig,
        slabs: Iterable[Slab],
        weights: WeightFormat,
        formats: Mapping[Key, str] | None = None,
        *,
        threads: int | None = None,
        isa: str | None = None,
    ) -> None:
        self.config = config
        self.weights = weights
        self._engine = _cpu.Engine(
            config,
            dict(formats if formats is not None else made_formats(config, weights)),
            env.force_isa() if isa is None else isa,
            env.resolve_threads(threads),
        )
        # The engine has reserved addresses only: memory is taken as the weights come.
        check_room(
            self._engine.weight_bytes,
            f"the model's {weights} weights",
            "choose a smaller model or weights='int4'",
        )
        for slab in slabs:
            slab.check_dtype()
            self._engine.set_weight(slab.role, slab.layer, slab.row_begin, slab.array, slab.format)
        self._engine.complete()

    @property
    def isa(self) -> str:
        """Instruction set in use."""
        return self._engine.isa

    @property
    def threads(self) -> int:
        """Threads in use, the calling one included."""
        return self._engine.threads

    @property
    def weight_bytes(self) -> int:
        """Bytes of the packed weights in memory, with the coarse copy of the head that there is or may be."""
        return self._engine.weight_bytes

    @property
    def step_bytes(self) -> int:
        """Bytes of weights that one greedy step of one row reads now: all but an untied embedding.

        Where tokens come from two stages, of the head its coarse copy, without what second stages read.
        """
        return self._engine.step_bytes

    @property
    def bytes_by_step(self) -> dict[str, int]:
        """The same by steps of a pass, over all layers: qkv, o, gate_up, down, head."""
        return self._engine.bytes_by_step

    def use_two_stages(self, *, on: bool) -> None:
        """Whether greedy tokens may come from two stages of the head; ``on`` makes its coarse copy now.

        Without this call it is made once it pays. Raises OutOfMemoryError.
        """
        self._engine.use_two_stages(on)

    def take_costs(self, *, watch: bool) -> list[dict[str, float]]:
        """Seconds by step, and ``barriers`` passed, of each thread since the last call.

        Steps are qkv, heads (rotation, keys and values stored), attention, o, gate_up, down, head, and
        wait (at barriers). Counting goes on if ``watch``; it is off at first.
        """
        return self._engine.costs(watch)

    def sequence(
        self, capacity: int, kv_dtype: KVDtype | None = None, *, poison: bool = False
    ) -> CpuSequence:
        """See :meth:`.Backend.sequence`."""
        dtype = kv_dtype or DEFAULT_KV[self.weights]
        if 1 <= capacity <= self.config.max_position:  # else the engine says what is wrong
            needed = self._engine.cache_bytes_needed(capacity, dtype)
            check_room(needed, f"a {dtype} KV cache of {capacity} positions", "ask for a smaller context")
        return CpuSequence(self._engine.sequence(capacity, dtype, poison))

    def advance(self, work: Work, to_layer: int) -> None:
        """See :meth:`.Backend.advance`."""
        self._engine.advance(_native(work), to_layer)

    def hidden(self, work: Work) -> Floats:
        """See :meth:`.Backend.hidden`."""
        return self._engine.hidden(_native(work))

    def logits(self, work: Work, head: DraftHead | None = None) -> Floats:
        """See :meth:`.Backend.logits`."""
        return self._engine.logits(_native(work), native_head(head))

    def argmax(self, work: Work) -> Ints:
        """See :meth:`.Backend.argmax`."""
        return self._engine.argmax(_native(work))

    def topk(self, work: Work, k: int) -> tuple[Ints, Floats]:
        """See :meth:`.Backend.topk`."""
        return self._engine.topk(_native(work), k)

    def sample(self, work: Work, sampling: Seq[Sampling]) -> Ints:
        """See :meth:`.Backend.sample`."""
        return self._engine.sample(_native(work), sampling)

    def verify(self, work: Work, sampling: Seq[Sampling] | None) -> tuple[list[int], float, float]:
        """See :meth:`.Backend.verify`."""
        return self._engine.verify(_native(work), sampling)

    def run_rounds(
        self,
        calls: Seq[RoundCall],
        drafter: FittedDrafter | None = None,
        head: DraftHead | None = None,
        turns: int = 1,
        exits: FittedExits | None = None,
    ) -> list[RoundTurn]:
        """See :meth:`.Backend.run_rounds`."""
        done = self._engine.run_rounds(
            native_rounds(calls),
            None if drafter is None else _native_drafter(drafter),
            native_head(head),
            turns,
            None if exits is None else native_exits(exits),
        )
        return [RoundTurn([RoundText(*text) for text in turn[0]], *turn[1:]) for turn in done]

    def copies(self, longest: int, shortest: int) -> _cpu.NgramIndex:
        """See :meth:`.Backend.copies`."""
        return _cpu.NgramIndex(longest, shortest)

    def draft(
        self, work: Work, sampling: Seq[Sampling], head: DraftHead | None = None
    ) -> tuple[Ints, Floats]:
        """See :meth:`.Backend.draft`."""
        return self._engine.draft(_native(work), sampling, native_head(head))

    def shadow(self, work: Work, layers: Seq[int], head: DraftHead | None = None) -> tuple[Ints, Floats]:
        """See :meth:`.Backend.shadow`."""
        return self._engine.shadow(_native(work), layers, native_head(head))

    def draft_head(
        self,
        adapter: Adapter | None,
        vocabulary: Ints | None,
        stored: DraftFormat | None = None,
        *,
        normed: bool = False,
    ) -> _cpu.DraftHead:
        """See :meth:`.Backend.draft_head`. Heads of the same vocabulary, as it is, share their rows."""
        parts = None if adapter is None else checked_adapter(adapter, self.config)
        if vocabulary is None and stored is not None:
            vocabulary = np.arange(self.config.vocab_size)
        ids = None if vocabulary is None else checked_vocabulary(vocabulary, self.config)
        return self._engine.draft_head(
            None if parts is None else (parts.norm, parts.down, parts.up),
            None if ids is None else ids.tolist(),
            None if stored is None or ids is None else (stored_rows(self._head_rows(ids), stored), stored),
            normed,
        )

    def _head_rows(self, ids: Ints) -> Floats:
        """Rows of the model's head as floats, read in pieces: (tokens, hidden_size)."""
        role = "embed" if self.config.tied_head else "head"
        rows = np.empty((len(ids), self.config.hidden_size), np.float32)
        for begin in range(0, self.config.vocab_size, _PIECE):
            first, last = np.searchsorted(ids, (begin, begin + _PIECE))
            count = min(_PIECE, self.config.vocab_size - begin)
            rows[first:last] = self._engine.weight_rows(role, -1, begin, count)[ids[first:last] - begin]
        return rows

    def drafter(self, parts: DrafterParts, stored: DraftFormat = "Q8_0") -> CpuDrafter:
        """See :meth:`.Backend.drafter`."""
        return CpuDrafter(self._engine, parts, self.config, stored)

    def draft_chains(
        self, drafter: FittedDrafter, calls: Seq[ChainCall], head: DraftHead | None = None
    ) -> list[tuple[list[int], list[float]]]:
        """See :meth:`.Backend.draft_chains`."""
        native, sequences = _native_drafter(drafter), _sequences(calls)
        return self._engine.draft_chains(native, native_chains(sequences, calls), native_head(head))

    def draft_trees(
        self, drafter: FittedDrafter, calls: Seq[TreeCall], head: DraftHead | None = None
    ) -> list[DraftedTree]:
        """See :meth:`.Backend.draft_trees`."""
        native, sequences = _native_drafter(drafter), _sequences(calls)
        trees = self._engine.draft_trees(native, native_trees(sequences, calls), native_head(head))
        return [DraftedTree(*tree) for tree in trees]

    def rank(
        self, drafter: FittedDrafter, calls: Seq[RankCall], k: int, head: DraftHead | None = None
    ) -> list[list[int]]:
        """See :meth:`.Backend.rank`."""
        columns = [native_column(call.column) for call in calls]
        slots = [call.slot for call in calls]
        native = list(zip(_sequences(calls), columns, slots, strict=True))
        return self._engine.rank(_native_drafter(drafter), native, k, native_head(head))

    def score(self, work: Work, layers: Seq[int], candidates: Ints) -> Floats:
        """See :meth:`.Backend.score`."""
        return self._engine.score(_native(work), layers, np.ascontiguousarray(candidates, np.int64))

    def exit_predictors(self, parts: ExitParts) -> CpuExits:
        """See :meth:`.Backend.exit_predictors`."""
        return CpuExits(self._engine, parts, self.config)

    def leave_early(
        self,
        drafter: FittedDrafter,
        predictors: FittedExits,
        calls: Seq[ExitCall],
        head: DraftHead | None = None,
        *,
        confirm: bool,
    ) -> Exits:
        """See :meth:`.Backend.leave_early`."""
        known = native_exits(predictors)
        native = [
            (sequence, native_column(call.column), call.slot, call.layers, call.threshold, call.sampling)
            for sequence, call in zip(_sequences(calls), calls, strict=True)
        ]
        exits, *seconds = self._engine.leave_early(
            _native_drafter(drafter), known, native, native_head(head), confirm
        )
        return Exits([Exit(*each) for each in exits], *seconds)

    def exit_rows(self, predictors: FittedExits, candidates: Seq[Seq[int]]) -> CpuExitRows:
        """See :meth:`.Backend.exit_rows`."""
        return CpuExitRows(self._engine, predictors, candidates)

    def ask_exits(self, rows: ExitRows, layer: int, calls: Seq[AskCall]) -> list[Answer]:
        """See :meth:`.Backend.ask_exits`."""
        native = [(sequence, *call[1:]) for sequence, call in zip(_sequences(calls), calls, strict=True)]
        return [Answer(*each) for each in self._engine.ask_exits(native_rows(rows), layer, native)]


def _native_drafter(drafter: FittedDrafter) -> _cpu.Drafter:
    return own(CpuDrafter, drafter, "drafters", "this backend's drafter()").native


def _sequences(calls: Seq[ChainCall | TreeCall | RankCall | ExitCall | AskCall]) -> list[_cpu.Sequence]:
    return [native_sequence(call.sequence) for call in calls]


def _native(work: Work) -> list[tuple[_cpu.Sequence, Seq[int]]]:
    return [(native_sequence(sequence), slots) for sequence, slots in work]
