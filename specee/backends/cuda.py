"""The CUDA backend: rows of all sequences through layers together, by the kernels of csrc/cuda."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from collections.abc import Sequence as Seq

import numpy as np
import torch
from torch import Tensor

from specee.backends.cuda_draft import CudaDraftHead, DraftHeadMaker
from specee.backends.cuda_drafter import CudaDrafter
from specee.backends.cuda_exit_rounds import ExitRounds
from specee.backends.cuda_exits import CudaExits
from specee.backends.cuda_graph_rounds import GraphRounds
from specee.backends.cuda_head import CudaHead
from specee.backends.cuda_layers import CudaLayers, Placed
from specee.backends.cuda_memory import Free, check_room, free_on
from specee.backends.cuda_recorded import KeptRounds, Parts, means_on
from specee.backends.cuda_repeats import Graphs
from specee.backends.cuda_weights import CudaWeights, Matrix, bytes_of, bytes_there, check_model, quantises
from specee.backends.cuda_workspace import Workspace
from specee.backends.drafter_verbs import DrafterVerbs
from specee.backends.head_verbs import Draw, foreign_head, kept_tokens, own_head
from specee.backends.plain_drafts import Parts as Drafting
from specee.backends.protocol import (
    DraftFormat,
    DraftHead,
    ExitCall,
    Exits,
    Floats,
    Ints,
    RoundCall,
    RoundTurn,
    Work,
)
from specee.backends.reference_exits import ExitRow, ReferenceExits
from specee.backends.reference_sequence import ReferenceSequence, with_ancestors
from specee.cuda import choose
from specee.cuda.graph import Means
from specee.cuda.launcher import Launcher
from specee.cuda.tiles import MAX_LINEAR_ROWS
from specee.errors import CapacityError, ConfigurationError, OutOfMemoryError, RowError
from specee.models.drafter_parts import DrafterParts
from specee.models.exit_parts import ExitParts
from specee.models.formats import made_formats
from specee.models.speculator import Adapter
from specee.models.table import Key, Slab
from specee.types import DEFAULT_KV, KVDtype, ModelConfig, WeightFormat

_CACHES: tuple[KVDtype, ...] = ("bf16", "fp16")


class CudaBackend(DrafterVerbs):
    """See :class:`specee.backends.protocol.Backend`, which documents every verb.

    Rows of all sequences of a call go through a layer together, 64 at a time, parents first. Inputs of
    products are rounded to bf16 or quantised to int8 once a row, as the weights want it; the residual
    stream is fp32 (docs/numerics.md).

    ``given``: what of the table is there already, used in place where kernels can read it; then ``slabs``
    has the others. ``launcher``, ``free``, bytes that the device has left, and ``means``, how whole rounds
    become one launch, are found out unless they are given. Raises BackendUnavailableError,
    ConfigurationError for weights and shapes without kernels, CheckpointError, OutOfMemoryError.
    """

    name = "cuda"

    def __init__(  # noqa: PLR0913 - what is found out, tests give
        self,
        config: ModelConfig,
        slabs: Iterable[Slab],
        weights: WeightFormat,
        formats: Mapping[Key, str] | None = None,
        *,
        device: str = "cuda",
        given: Mapping[Key, Matrix] | None = None,
        launcher: Launcher | None = None,
        free: Free | None = None,
        means: Means | None = None,
    ) -> None:
        check_model(config, weights)
        self.config, self.weights = config, weights
        self._device = _numbered(torch.device(device))
        self._free = free_on(self._device) if free is None else free
        self._lock = threading.RLock()  # calls share the workspace
        self._launcher = choose().launcher if launcher is None else launcher
        stored = formats if formats is not None else made_formats(config, weights)
        self._workspace = Workspace(config, self._device, quantised=quantises(config, stored))
        needed = bytes_of(config, stored) - bytes_there(given or {}, self._device)
        check_room(
            self._free,
            needed + self._workspace.fixed_bytes + self._workspace.bytes_for(1),
            f"{weights} weights of {config.num_layers} layers",
            "choose weights='int8' or 'int4'",
        )
        self._table = CudaWeights(config, slabs, stored, self._device, given)
        self._workspace.fit(1)
        parts = (config, self._table, self._workspace, self._launcher, self._device)
        means = means_on(self._device, self._launcher) if means is None else means
        self._graphs = Graphs(means, self._device)
        self._kept = KeptRounds(means, self._graphs)
        self._layers, self._head = CudaLayers(*parts, self._graphs), CudaHead(*parts, self._graphs)
        rounds = Parts(config, self._table, self._layers, self._workspace, self._free, self._device)
        self._rounds, self._exits = (
            GraphRounds(rounds, self._kept, self._graphs),
            ExitRounds(rounds, self._kept),
        )
        head = self._table.matrix(*self._table.head_key)
        self._draft_heads = DraftHeadMaker(
            *(config, head, self._workspace, self._launcher, self._device), self._graphs
        )

    @property
    def weight_bytes(self) -> int:
        """Bytes of the weights that a decoding step reads."""
        return self._table.weight_bytes

    @property
    def graphs_missing(self) -> str | None:
        """Why rounds and what comes again are not one launch each, None where they are as far as can be."""
        return "; ".join(reason for reason in (self._kept.reasons(), self._graphs.failed) if reason) or None

    @torch.no_grad()
    def _whole_round(self, calls: Seq[RoundCall], drafting: Drafting) -> RoundTurn | None:
        with self._lock:
            return self._rounds.turn(calls, drafting)

    @torch.no_grad()
    def _whole_exits(
        self, predictors: ReferenceExits, calls: Seq[ExitCall], candidates: Seq[Seq[int]]
    ) -> Exits | None:
        with self._lock:
            return self._exits.turn(_on_device(predictors), calls, candidates)

    def sequence(
        self, capacity: int, kv_dtype: KVDtype | None = None, *, poison: bool = False
    ) -> ReferenceSequence:
        """Reserve a sequence. Raises CapacityError, OutOfMemoryError, ConfigurationError."""
        config = self.config
        kv_dtype = kv_dtype or DEFAULT_KV[self.weights]
        if kv_dtype not in _CACHES:
            raise ConfigurationError(
                f"kv_dtype {kv_dtype!r} on backend 'cuda': allowed are {', '.join(map(repr, _CACHES))}"
            )
        if not 1 <= capacity <= config.max_position:
            raise CapacityError(
                f"a sequence of {capacity} positions: allowed are 1..{config.max_position}, the context"
            )
        with self._lock:
            self._check_room_for(kv_dtype, capacity)
            sequence = ReferenceSequence(
                config, capacity, kv_dtype, poison=poison, device=self._device, owner=self
            )
            self._workspace.fit(capacity)
        return sequence

    def _check_room_for(self, kv_dtype: KVDtype, capacity: int) -> None:
        needed = 4 * self.config.num_layers * capacity * self.config.kv_dim
        needed += self._workspace.bytes_for(capacity)
        self._make_room(needed, f"a {kv_dtype} KV cache of {capacity} positions", "ask for a shorter context")

    def _make_room(self, needed: int, what: str, advice: str) -> None:
        """Rounds that are kept make way, and all other graphs. Raises OutOfMemoryError."""
        try:
            check_room(self._free, needed, what, advice)
        except OutOfMemoryError:
            with self._lock:
                dropped = [one.drop() for one in (self._kept, self._graphs)]
            if not any(dropped):
                raise
            check_room(self._free, needed, what, advice)

    @torch.no_grad()
    def advance(self, work: Work, to_layer: int) -> None:
        """Bring rows, and what they attend to, to ``to_layer`` layers done. Raises RowError."""
        if not 1 <= to_layer <= self.config.num_layers:
            raise RowError(f"to_layer {to_layer}: allowed are 1..{self.config.num_layers}")
        named = self._named(work)
        for sequence, rows in named:
            sequence.name(rows)
        needed = [Placed(sequence, row) for sequence, rows in named for row in with_ancestors(rows, to_layer)]
        needed.sort(key=lambda placed: placed.row.position)  # parents first
        for begin in range(0, len(needed), MAX_LINEAR_ROWS):
            placed = needed[begin : begin + MAX_LINEAR_ROWS]
            with self._lock:
                self._layers.run(placed, to_layer)
            if begin + len(placed) < len(needed):  # a long prompt holds one pass's states, not all of its own
                for sequence, _ in named:
                    sequence.release([one.row for one in placed if one.sequence is sequence])
        for sequence, rows in named:
            sequence.name(rows)
        if self._device.type == "cuda":
            torch.cuda.current_stream(self._device).synchronize()  # seconds are measured by calls

    def _stacked(self, states: list[Tensor]) -> Tensor:
        return super()._stacked(states).to(self._device)

    def _embedding(self, token: int) -> Tensor:
        return self._layers.embedding(token)

    @torch.no_grad()
    def _logits(self, states: Tensor, head: DraftHead | None) -> Floats:
        with self._lock:
            return self._head.logits(states, self._own_head(head))

    @torch.no_grad()
    def _choose(
        self, states: Tensor, draws: Seq[Draw] | None, head: DraftHead | None, *, shares: bool
    ) -> tuple[Ints, Floats]:
        with self._lock:
            return self._head.choose(states, draws, self._own_head(head), shares=shares)

    @torch.no_grad()
    def _scores(self, states: Tensor, ids: Ints) -> Floats:
        with self._lock:
            return self._head.scores(states, ids)

    @torch.no_grad()
    def chances(self, predictors: ReferenceExits, layer: int, work: Work, rows: Seq[ExitRow]) -> list[float]:
        """What a layer's predictor says of rows, by the kernels that launches have."""
        states, network = self._states(work), _on_device(predictors).network(layer)
        ids = np.array([row.candidates for row in rows], np.int64)
        before = np.array([row.before_or_zeros() for row in rows], np.float32)
        with self._lock:
            logits, probabilities, chances = self._head.chances(states, ids, before, network)
        for row, own, now in zip(rows, logits, probabilities, strict=True):
            row.saw(own, now)
        return [float(chance) for chance in chances]

    def exit_predictors(self, parts: ExitParts) -> CudaExits:
        """Predictors of early exits. Raises ConfigurationError."""
        return CudaExits(parts, self.config, self._device)

    def _own_head(self, head: DraftHead | None) -> CudaDraftHead | None:
        own = own_head(CudaDraftHead, head, self.config)
        if own is not None and own.repeats.graphs is not self._graphs:  # of another one for the same model
            raise foreign_head(head)
        return own

    def _made_here(self, drafter: object) -> bool:
        return isinstance(drafter, CudaDrafter) and drafter.graphs is self._graphs

    def _head_tokens(self, head: DraftHead | None) -> int:
        return kept_tokens(self._own_head(head), self.config)

    def draft_head(
        self,
        adapter: Adapter | None,
        vocabulary: Ints | None,
        stored: DraftFormat | None = None,
        *,
        normed: bool = False,
    ) -> CudaDraftHead:
        """A head for drafts. Raises ConfigurationError."""
        return self._draft_heads.make(adapter, vocabulary, stored, normed=normed)

    def drafter(self, parts: DrafterParts, stored: DraftFormat = "Q8_0") -> CudaDrafter:
        """A drafter block. Raises ConfigurationError, OutOfMemoryError."""
        return CudaDrafter(
            *(self.config, parts, stored, self._device, self._launcher),
            embedding=self._table.matrix("embed"),
            graphs=self._graphs,
            check_room=self._make_room,
        )


def _on_device(predictors: ReferenceExits) -> CudaExits:
    """Raises ConfigurationError for predictors of another backend in torch."""
    if isinstance(predictors, CudaExits):
        return predictors
    raise ConfigurationError(
        f"{type(predictors).__name__} of another backend: make predictors with this backend's "
        "exit_predictors()"
    )


def _numbered(device: torch.device) -> torch.device:
    """The device that tensors on ``device`` name."""
    if device.type != "cuda" or ":" in str(device):
        return device
    return torch.device("cuda", torch.cuda.current_device())
