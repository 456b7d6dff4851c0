"""Rows through layers on a device: 64 of them in a pass, of any sequences, weights read once a layer."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator
from collections.abc import Sequence as Seq
from copy import copy
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from specee.backends.cuda_courses import Course, Courses
from specee.backends.cuda_repeats import Graphs, Recording
from specee.backends.cuda_weights import CudaWeights, Matrix
from specee.backends.cuda_workspace import FIELDS, Span, Workspace, padded_depth
from specee.backends.reference_math import inverse_frequencies
from specee.backends.reference_sequence import ReferenceSequence, Row
from specee.cuda.attention import attention
from specee.cuda.launcher import Launcher
from specee.cuda.products import multiply, norm_rows, prepare_rows, swiglu_rows
from specee.cuda.rotation import Cache, Projected, turn_angles, turn_heads
from specee.cuda.rows import add_bias, copy_rows, embed_rows, fill_paths
from specee.cuda.tiles import MAX_LINEAR_ROWS
from specee.errors import OutOfMemoryError
from specee.types import ModelConfig


class Placed(NamedTuple):
    """A row and whose it is."""

    sequence: ReferenceSequence
    row: Row


class Caches(Protocol):
    """Keys and values of a sequence, (layers, capacity, kv_heads, head_dim) each."""

    @property
    def keys(self) -> Tensor:
        """After rotation."""

    @property
    def values(self) -> Tensor:
        """As they are projected."""


class Run(NamedTuple):
    """Neighbouring rows of one sequence: attention and cache are each sequence's own."""

    sequence: Caches
    span: Span


@dataclass(frozen=True)
class _Layer:
    """Weights of one layer; biases and norms of heads where the model has them."""

    attn_norm: Tensor
    mlp_norm: Tensor
    q: Matrix
    k: Matrix
    v: Matrix
    o: Matrix
    gate: Matrix
    up: Matrix
    down: Matrix
    q_bias: Tensor | None
    k_bias: Tensor | None
    v_bias: Tensor | None
    q_norm: Tensor | None
    k_norm: Tensor | None
    o_bias: Tensor | None
    gate_bias: Tensor | None
    up_bias: Tensor | None
    down_bias: Tensor | None


class CudaLayers:
    """All layers of a model, and one pass of rows through some of them."""

    def __init__(
        self,
        config: ModelConfig,
        table: CudaWeights,
        workspace: Workspace,
        launcher: Launcher,
        device: torch.device,
        graphs: Graphs,
    ) -> None:
        self._config, self._workspace, self._launcher, self._device = config, workspace, launcher, device
        self._graphs = graphs
        self._embedding = table.matrix("embed")
        self._layers = [_layer(table, layer) for layer in range(config.num_layers)]
        self._courses = Courses()
        self._speeds = inverse_frequencies(config.rope, config.head_dim).to(device)

    def run(self, rows: Seq[Placed], to_layer: int) -> None:
        """Bring at most 64 rows, short of ``to_layer``, there. What they attend to is there or among them.

        Rows know of it once all is on its way; nothing has changed if this raises.
        """
        # Those that have done less come first: each layer has the rows from the first one on. Within a
        # number of layers, the rows of a sequence are neighbours.
        order: dict[int, int] = {}
        for one in rows:
            order.setdefault(id(one.sequence), len(order))
        placed = sorted(rows, key=lambda one: (one.row.done, order[id(one.sequence)]))
        outputs = Outputs(placed, to_layer, self._workspace)
        x = self._workspace.span(0, len(placed)).x
        course = Course(
            tuple(one.row.done for one in placed),
            tuple(one.sequence for one in placed),
            to_layer,
            self._send(placed),
            outputs.layers,
        )
        waiting = [one.row.hidden for one in placed if one.row.hidden is not None]
        if waiting:
            torch.stack(waiting, out=x[len(placed) - len(waiting) :])
        room = self._workspace.positions
        known = self._courses.find(course, room)
        if known is not None:
            known.repeat()
        else:
            recording = Recording(self._launcher, self._graphs)
            self.on(recording).launch(course)
            self._courses.add(course, room, recording)
        outputs.hand_over()

    def launch(self, course: Course) -> None:
        """Every launch of a pass, and nothing else: ``course`` decides it, on arrays that stand still."""
        launcher, done, count = self._launcher, course.done, len(course.done)
        span, fresh = self._workspace.span(0, count), bisect_right(done, 0)
        if fresh:
            begin = self._workspace.span(0, fresh)
            embed_rows(launcher, begin.tokens, self._embedding, begin.x)
        tails = self._workspace.tails(count, course.depth)
        fill_paths(launcher, span.table, span.lengths, span.ends, tails)
        turn_angles(launcher, span.positions, self._speeds, span.turns)
        runs: list[Run] = []
        for layer in range(done[0], course.to_layer):
            there = bisect_right(done, layer)
            if not runs or there > bisect_right(done, layer - 1):
                runs = list(self._runs(course.sequences[:there]))
            span = self._workspace.span(0, there)
            self.through(layer, span, runs)
            if layer + 1 in course.kept:
                copy_rows(launcher, span.x, self._workspace.kept[layer + 1][:there])

    def embedding(self, token: int) -> Tensor:
        """The embedding of a token: (hidden_size,) fp32."""
        x = torch.empty(1, self._config.hidden_size, device=self._device)
        tokens = torch.tensor([token], dtype=torch.int32, device=self._device)
        embed_rows(self._launcher, tokens, self._embedding, x)
        return x[0]

    def on(self, launcher: Launcher) -> CudaLayers:
        """The same layers over another launcher, such as one that records."""
        other = copy(self)
        other._launcher = launcher
        return other

    def enter(self, span: Span, tails: Tensor) -> None:
        """Rows into the residual stream, with paths and angles, by the numbers that are in ``span``."""
        embed_rows(self._launcher, span.tokens, self._embedding, span.x)
        fill_paths(self._launcher, span.table, span.lengths, span.ends, tails)
        turn_angles(self._launcher, span.positions, self._speeds, span.turns)

    def through(self, layer: int, span: Span, runs: Seq[Run]) -> None:
        """Rows of ``span`` through one layer; ``runs`` are its sequences'."""
        self._attend(layer, span, runs)
        self._feed_forward(layer, span)

    def _send(self, placed: Seq[Placed]) -> int:
        """What kernels have to know of the rows, in one transfer; the depth of the tails."""
        workspace = self._workspace
        tails = [_tail(one) for one in placed]
        depth = padded_depth(max(map(len, tails)))
        begin = workspace.tails_begin
        numbers = np.zeros(begin + len(placed) * depth, np.int32)
        fields = numbers[:begin].reshape(-1, MAX_LINEAR_ROWS)
        for at, (one, tail) in enumerate(zip(placed, tails, strict=True)):
            row = one.row
            end = row.position + 1
            by_name = dict(
                zip(FIELDS, (row.token, row.position, end - len(tail), end, row.slot), strict=True)
            )
            fields[: len(FIELDS), at] = [by_name[name] for name in FIELDS]
            fields[len(FIELDS) :, at] = [max(0, end - window) for window in workspace.windows]
            numbers[begin + at * depth : begin + at * depth + len(tail)] = tail
        workspace.numbers[: len(numbers)].copy_(torch.from_numpy(numbers))
        return depth

    def _runs(self, sequences: Seq[ReferenceSequence]) -> Iterator[Run]:
        begin = 0
        for end in range(1, len(sequences) + 1):
            if end == len(sequences) or sequences[end] is not sequences[begin]:
                yield Run(sequences[begin], self._workspace.span(begin, end))
                begin = end

    def _attend(self, layer: int, span: Span, runs: Seq[Run]) -> None:
        """Attention: x += o(attention(norm(x)))."""
        config, launcher, own = self._config, self._launcher, self._layers[layer]
        norm_rows(launcher, span.x, own.attn_norm, span.normed, eps=config.norm_eps)
        multiply(launcher, span.normed, own.q, span.queries.flatten(1))
        multiply(launcher, span.normed, own.k, span.keys.flatten(1))
        multiply(launcher, span.normed, own.v, span.values.flatten(1))
        caches = [Cache(run.sequence.keys[layer], run.sequence.values[layer]) for run in runs]
        # All keys and values first: a row's parent may be in a later run.
        for (_, rows), cache in zip(runs, caches, strict=True):
            turn_heads(
                launcher,
                Projected(rows.queries, own.q_bias, own.q_norm),
                Projected(rows.keys, own.k_bias, own.k_norm),
                Projected(rows.values, own.v_bias),
                rows.turns,
                rows.slots,
                cache,
                eps=config.norm_eps,
            )
        for (_, rows), cache in zip(runs, caches, strict=True):
            attention(
                launcher,
                rows.queries,
                cache.keys,
                cache.values,
                rows.paths(config.windows[layer]),
                rows.mixed,
                rows.splits,
                scale=1 / math.sqrt(config.head_dim),
            )
        prepare_rows(launcher, span.mixed.flatten(1), span.attended)
        multiply(launcher, span.attended, own.o, span.x, add=True)
        if own.o_bias is not None:
            add_bias(launcher, span.x, own.o_bias)

    def _feed_forward(self, layer: int, span: Span) -> None:
        """Feed-forward: x += down(silu(gate(norm(x))) * up(norm(x)))."""
        launcher, own = self._launcher, self._layers[layer]
        norm_rows(launcher, span.x, own.mlp_norm, span.normed, eps=self._config.norm_eps)
        multiply(launcher, span.normed, own.gate, span.gate)
        multiply(launcher, span.normed, own.up, span.up)
        swiglu_rows(launcher, span.gate, span.up, span.gated, gate_bias=own.gate_bias, up_bias=own.up_bias)
        multiply(launcher, span.gated, own.down, span.x, add=True)
        if own.down_bias is not None:
            add_bias(launcher, span.x, own.down_bias)


class Outputs:
    """Where states go that outlive the pass; had before anything is computed. Raises OutOfMemoryError."""

    def __init__(self, placed: Seq[Placed], to_layer: int, workspace: Workspace) -> None:
        self._placed, self._to_layer, self._workspace = placed, to_layer, workspace
        first = placed[0].row.done
        self.layers = frozenset(
            layer for one in placed for layer in one.sequence.layers_kept if first < layer < to_layer
        )
        x = workspace.span(0, len(placed)).x
        try:
            workspace.keep(self.layers)
            self._states = {layer: torch.empty_like(x) for layer in (*self.layers, to_layer)}
        except RuntimeError as error:
            raise OutOfMemoryError(
                f"hidden states of {len(placed)} rows after {1 + len(self.layers)} layers do not fit in "
                f"memory ({error}); keep fewer layers, or free memory"
            ) from error

    def hand_over(self) -> None:
        """Take states out of the workspace; rows have done their layers."""
        for layer, states in self._states.items():
            last = layer == self._to_layer
            states.copy_(
                self._workspace.span(0, len(states)).x if last else self._workspace.kept[layer][: len(states)]
            )
        for at, (sequence, row) in enumerate(self._placed):
            if row.done == 0:
                sequence.begin(row)
            before, row.done = row.done, self._to_layer
            row.hidden = self._states[row.done][at]
            if row.keeping:
                layers = [layer for layer in sequence.layers_kept if before < layer <= row.done]
                row.kept |= {layer: self._states[layer][at] for layer in layers}


def _tail(placed: Placed) -> list[int]:
    """Slots of the row's path behind the committed text."""
    slots: list[int] = []
    row: Row | None = placed.row
    while row is not None and row.slot >= placed.sequence.length:
        slots.append(row.slot)
        row = row.parent
    return slots[::-1]


def _layer(table: CudaWeights, layer: int) -> _Layer:
    matrices = ("q", "k", "v", "o", "gate", "up", "down")
    vectors = [name for name in _Layer.__dataclass_fields__ if name not in matrices]
    return _Layer(
        **{role: table.matrix(role, layer) for role in matrices},  # type: ignore[arg-type]
        **{role: table.maybe(role, layer) for role in vectors},  # type: ignore[arg-type]
    )
