"""The C++ backend: :mod:`specee._cpu` behind the protocol of :mod:`specee.backends.protocol`."""

from __future__ import annotations

import math
from collections.abc import Iterable
from collections.abc import Sequence as Seq

import numpy as np

from specee import _cpu, env
from specee.backends.memory import check_room
from specee.backends.protocol import Floats, Ints, Work
from specee.errors import CheckpointError, RowError
from specee.models.table import Slab, shapes
from specee.types import KVDtype, ModelConfig, RowInfo, Sampling, WeightFormat

_DTYPE_NAMES = {
    np.dtype(np.float32): "fp32",
    np.dtype(np.float16): "fp16",
    np.dtype(np.uint16): "bf16",
}


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
        return tuple(self.native.frontier)

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
        return range(first, self.native.length)

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

    def kv(self, layer: int, slots: Seq[int]) -> tuple[Floats, Floats]:
        """See :meth:`.SequenceState.kv`."""
        return self.native.kv(layer, slots)


class CpuBackend:
    """One model on the CPU.

    ``slabs`` must cover every tensor of ``config`` exactly once; each is packed as it comes and can be
    dropped by its maker. ``threads`` defaults to ``SPECEE_NUM_THREADS``, else the physical cores this
    process may use; ``isa`` to ``SPECEE_FORCE_ISA``, else the fastest this processor runs.
    Raises CheckpointError for weights that do not fit ``config``, ConfigurationError for a wrong
    ``threads`` or ``isa``, OutOfMemoryError if the weights do not fit into memory.
    """

    name = "cpu"

    def __init__(
        self,
        config: ModelConfig,
        slabs: Iterable[Slab],
        weights: WeightFormat,
        *,
        threads: int | None = None,
        isa: str | None = None,
    ) -> None:
        width = 4 if weights == "fp32" else 2
        needed = sum(math.prod(shape) for shape in shapes(config).values()) * width
        check_room(needed, f"the model's {weights} weights", "choose a smaller model or weights='bf16'")
        self.config = config
        self.weights = weights
        self._engine = _cpu.Engine(
            config,
            weights,
            env.force_isa() if isa is None else isa,
            env.resolve_threads(threads),
        )
        for slab in slabs:
            dtype = _DTYPE_NAMES.get(slab.array.dtype)
            if dtype is None:
                raise CheckpointError(
                    f"tensor {slab.role!r} of layer {slab.layer} is {slab.array.dtype}: float32, float16 and "
                    "uint16 (bfloat16 bits) are supported; convert it"
                )
            self._engine.set_weight(slab.role, slab.layer, slab.row_begin, slab.array, dtype)
        self._engine.check_complete()

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
        """Bytes of the packed weights in memory."""
        return self._engine.weight_bytes

    @property
    def step_bytes(self) -> int:
        """Bytes of weights that one decoding step reads: all, but for the embedding of an untied head."""
        return self._engine.step_bytes

    def sequence(
        self, capacity: int, kv_dtype: KVDtype | None = None, *, poison: bool = False
    ) -> CpuSequence:
        """See :meth:`.Backend.sequence`."""
        dtype = kv_dtype or ("fp32" if self.weights == "fp32" else "bf16")
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

    def logits(self, work: Work) -> Floats:
        """See :meth:`.Backend.logits`."""
        return self._engine.logits(_native(work))

    def argmax(self, work: Work) -> Ints:
        """See :meth:`.Backend.argmax`."""
        return self._engine.argmax(_native(work))

    def topk(self, work: Work, k: int) -> tuple[Ints, Floats]:
        """See :meth:`.Backend.topk`."""
        return self._engine.topk(_native(work), k)

    def sample(self, work: Work, sampling: Seq[Sampling]) -> Ints:
        """See :meth:`.Backend.sample`."""
        return self._engine.sample(_native(work), sampling)


def _native(work: Work) -> list[tuple[_cpu.Sequence, Seq[int]]]:
    pairs = []
    for sequence, slots in work:
        if not isinstance(sequence, CpuSequence):
            raise RowError(
                f"got a {type(sequence).__name__} where the cpu backend needs its own sequences; "
                "make them with this backend's sequence()"
            )
        pairs.append((sequence.native, slots))
    return pairs
