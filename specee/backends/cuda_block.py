"""A drafter block's launches on a device, and the arrays between them.

The formula is the reference's (:mod:`specee.backends.reference_drafter`); rows that enter products are
quantised, as for packed weights (docs/numerics.md). A row has the same bits whatever rows are beside it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from collections.abc import Sequence as Seq
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import torch
from torch import Tensor

from specee.backends.cuda_workspace import cut_rows
from specee.cuda.attention import Paths, attention
from specee.cuda.attention import Workspace as Splits
from specee.cuda.launcher import Launcher
from specee.cuda.linear import QuantisedRows
from specee.cuda.packing import PackedWeights
from specee.cuda.products import multiply, norm_rows, prepare_rows, swiglu_rows
from specee.cuda.rotation import Cache, Projected, Turns, turn_angles, turn_heads
from specee.cuda.rows import add_bias, fill_paths
from specee.cuda.tiles import TILE_UNIT, attention_splits
from specee.types import ModelConfig


@dataclass(frozen=True)
class TextRows:
    """What rows of text need until their keys and values are stored.

    int32 (rows,): ``tokens``, ``places`` in the column, which angles go by, and ``slots``, below 0 for
    nowhere. fp32: ``embedding`` and ``x`` (rows, hidden), ``states`` (layers, rows, hidden) of the position
    before each, ``keys`` and ``values`` (rows, key heads, dim). What enters products: ``joined`` (rows,
    layers * hidden), ``both`` (rows, 2 * hidden), ``normed`` (rows, hidden).
    """

    tokens: Tensor
    places: Tensor
    slots: Tensor
    embedding: Tensor
    states: Tensor
    joined: QuantisedRows
    x: Tensor
    both: QuantisedRows
    normed: QuantisedRows
    keys: Tensor
    values: Tensor
    turns: Turns

    def cut(self, count: int) -> TextRows:
        """The first ``count`` rows."""
        rows = {one.name: getattr(self, one.name) for one in fields(TextRows)}
        states = rows.pop("states")[:, :count]
        return TextRows(**{name: cut_rows(one, 0, count) for name, one in rows.items()}, states=states)


@dataclass(frozen=True)
class NewRows(TextRows):
    """What rows need of which the block says what follows: that is in ``x`` then.

    ``tails`` (rows, most) int32: slots of their paths behind ``lengths`` (:func:`.fill_paths`).
    """

    lengths: Tensor
    ends: Tensor
    tails: Tensor
    table: Tensor
    queries: Tensor
    mixed: Tensor
    splits: Splits
    attended: QuantisedRows
    gate: Tensor
    up: Tensor
    gated: QuantisedRows


class BlockRun(NamedTuple):
    """Rows ``begin`` to ``end`` are of one sequence, whose column has this cache."""

    cache: Cache
    begin: int
    end: int


class Block:
    """What a block launches; ``inner`` is the width of its feed-forward part."""

    def __init__(
        self,
        config: ModelConfig,
        layers: int,
        matrices: Mapping[str, PackedWeights],
        vectors: Mapping[str, Tensor],
        speeds: Tensor,
        *,
        plain: bool,
    ) -> None:
        self._config, self._layers, self._plain = config, layers, plain
        self._matrices, self._vectors, self._speeds = matrices, vectors, speeds
        self._inner = matrices["gate"].outputs
        self._device = speeds.device

    def remember(self, launcher: Launcher, rows: TextRows, runs: Seq[BlockRun]) -> None:
        """Store keys and values of rows of text: nothing else of them is of use to rows behind them."""
        self._enter_text(launcher, rows)
        self._project(launcher, rows, None, runs)

    def text_row(self, launcher: Launcher, rows: NewRows, runs: Seq[BlockRun]) -> None:
        """What the block gives at rows behind text, by ``states``."""
        self._enter_text(launcher, rows)
        self._finish(launcher, rows, runs)

    def draft_row(self, launcher: Launcher, rows: NewRows, runs: Seq[BlockRun]) -> None:
        """The same behind what it gave at the position before, which is in ``x``."""
        self._norm(launcher, "embed_norm", rows.embedding, self._half(rows, 0))
        self._norm(launcher, "fused_norm", rows.x, self._half(rows, 1))
        self._finish(launcher, rows, runs)

    def _enter_text(self, launcher: Launcher, rows: TextRows) -> None:
        """Embedding and fused states into ``both``; a plain block has one state, and norms it alone."""
        hidden, eps = self._config.hidden_size, self._config.norm_eps
        norms = self._vectors["state_norms"]
        self._norm(launcher, "embed_norm", rows.embedding, self._half(rows, 0))
        if self._plain:
            norm_rows(launcher, rows.states[0], norms[0], self._half(rows, 1), eps=eps)
            return
        for at, (state, norm) in enumerate(zip(rows.states, norms, strict=True)):
            part = rows.joined.columns(at * hidden, (at + 1) * hidden)
            norm_rows(launcher, state, norm, part, eps=eps)
        multiply(launcher, rows.joined, self._matrices["fuse"], rows.x)
        self._norm(launcher, "fused_norm", rows.x, self._half(rows, 1))

    def _half(self, rows: TextRows, which: int) -> QuantisedRows:
        hidden = self._config.hidden_size
        return rows.both.columns(which * hidden, (which + 1) * hidden)

    def _norm(self, launcher: Launcher, name: str, x: Tensor, out: QuantisedRows) -> None:
        """As products take it; a plain block has no norms here."""
        if self._plain:
            prepare_rows(launcher, x, out)
        else:
            norm_rows(launcher, x, self._vectors[name], out, eps=self._config.norm_eps)

    def _finish(self, launcher: Launcher, rows: NewRows, runs: Seq[BlockRun]) -> None:
        """From ``both`` to ``x``."""
        eps = self._config.norm_eps
        multiply(launcher, self._project_queries(launcher, rows, runs), self._matrices["o"], rows.x, add=True)
        norm_rows(launcher, rows.x, self._vectors["mlp_norm"], rows.normed, eps=eps)
        multiply(launcher, rows.normed, self._matrices["gate"], rows.gate)
        multiply(launcher, rows.normed, self._matrices["up"], rows.up)
        swiglu_rows(launcher, rows.gate, rows.up, rows.gated)
        multiply(launcher, rows.gated, self._matrices["down"], rows.x, add=True)

    def _project_queries(self, launcher: Launcher, rows: NewRows, runs: Seq[BlockRun]) -> QuantisedRows:
        """What attention gives, as the output product takes it."""
        self._project(launcher, rows, rows.queries, runs)
        fill_paths(launcher, rows.table, rows.lengths, rows.ends, rows.tails)
        scale = 1 / math.sqrt(self._config.head_dim)
        for cache, begin, end in runs:
            own = slice(begin, end)
            paths, splits = Paths(rows.table[own], rows.ends[own]), rows.splits
            attention(
                *(launcher, rows.queries[own], cache.keys, cache.values, paths, rows.mixed[own]),
                Splits(splits.partial[own], splits.maxima[own], splits.sums[own]),
                scale=scale,
            )
        prepare_rows(launcher, rows.mixed.flatten(1), rows.attended)
        return rows.attended

    def _project(
        self, launcher: Launcher, rows: TextRows, queries: Tensor | None, runs: Seq[BlockRun]
    ) -> None:
        """From ``both`` to keys and values in the cache, and queries if there are some."""
        eps = self._config.norm_eps
        multiply(launcher, rows.both, self._matrices["fc"], rows.x)
        if "fc_bias" in self._vectors:
            add_bias(launcher, rows.x, self._vectors["fc_bias"])
        self._norm(launcher, "attn_norm", rows.x, rows.normed)
        outputs = {"k": rows.keys, "v": rows.values} | ({} if queries is None else {"q": queries})
        for name, out in outputs.items():
            multiply(launcher, rows.normed, self._matrices[name], out.flatten(1))
        turn_angles(launcher, rows.places, self._speeds, rows.turns)
        for cache, begin, end in runs:
            own = slice(begin, end)
            turn_heads(
                launcher,
                None if queries is None else Projected(queries[own]),
                Projected(rows.keys[own]),
                Projected(rows.values[own]),
                Turns(rows.turns.cosines[own], rows.turns.sines[own]),
                rows.slots[own],
                cache,
                eps=eps,
            )

    def text_rows(self, tokens: Tensor, places: Tensor, slots: Tensor) -> TextRows:
        """Arrays for as many rows as these numbers (rows,) int32 are for."""
        return TextRows(**self._text_arrays(tokens, places, slots))

    def new_rows(self, numbers: Tensor, tails: Tensor, positions: int) -> NewRows:
        """The same.

        ``numbers`` (5, rows) int32: tokens, places, slots, lengths, ends; columns have ``positions`` at most.
        """
        config, rows = self._config, len(numbers[0])
        tokens, places, slots, lengths, ends = numbers
        heads, dim, splits = config.num_heads, config.head_dim, attention_splits(positions)
        return NewRows(
            **self._text_arrays(tokens, places, slots),
            lengths=lengths,
            ends=ends,
            tails=tails,
            table=torch.zeros(rows, positions, dtype=torch.int32, device=self._device),
            queries=self._floats(rows, heads, dim),
            mixed=self._floats(rows, heads, dim),
            splits=Splits(
                self._floats(rows, heads, splits, dim),
                self._floats(rows, heads, splits),
                self._floats(rows, heads, splits),
            ),
            attended=self._inputs(rows, config.q_dim),
            gate=self._floats(rows, self._inner),
            up=self._floats(rows, self._inner),
            gated=self._inputs(rows, self._inner),
        )

    def text_bytes(self, rows: int) -> int:
        """Of :meth:`text_rows`, at most."""
        hidden, config = self._config.hidden_size, self._config
        floats = (self._layers + 2) * hidden + 2 * config.kv_dim + config.head_dim + 3
        return rows * (4 * floats + 2 * (self._layers + 3) * hidden)

    def new_bytes(self, rows: int, positions: int) -> int:
        """Of :meth:`new_rows`, at most."""
        config = self._config
        splits = attention_splits(positions) * config.num_heads * (config.head_dim + 2)
        floats = 3 * config.q_dim + 3 * self._inner + splits + 2 * positions + 2
        return self.text_bytes(rows) + 4 * rows * floats

    def _text_arrays(self, tokens: Tensor, places: Tensor, slots: Tensor) -> dict[str, Any]:
        config, rows = self._config, len(tokens)
        hidden, heads, dim = config.hidden_size, config.num_kv_heads, config.head_dim
        return {
            "tokens": tokens,
            "places": places,
            "slots": slots,
            "embedding": self._floats(rows, hidden),
            "states": self._floats(self._layers, rows, hidden),
            "joined": self._inputs(rows, self._layers * hidden),
            "x": self._floats(rows, hidden),
            "both": self._inputs(rows, 2 * hidden),
            "normed": self._inputs(rows, hidden),
            "keys": self._floats(rows, heads, dim),
            "values": self._floats(rows, heads, dim),
            "turns": Turns(self._floats(rows, dim // 2), self._floats(rows, dim // 2)),
        }

    def _inputs(self, rows: int, width: int) -> QuantisedRows:
        q = torch.empty(rows, width, dtype=torch.int8, device=self._device)
        blocks = width // TILE_UNIT
        return QuantisedRows(q, self._floats(rows, blocks), self._floats(rows, blocks))

    def _floats(self, *shape: int) -> Tensor:
        return torch.empty(shape, device=self._device)
