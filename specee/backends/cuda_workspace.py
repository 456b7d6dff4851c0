"""Arrays between the kernels of a pass: made once for 64 rows, so that a pass allocates nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from specee.cuda.attention import Paths
from specee.cuda.attention import Workspace as Splits
from specee.cuda.linear import QuantisedRows
from specee.cuda.products import Inputs
from specee.cuda.rotation import Turns
from specee.cuda.tiles import MAX_LINEAR_ROWS, TILE_UNIT, attention_splits
from specee.types import ModelConfig

FIELDS = ("tokens", "positions", "lengths", "ends", "slots")
"""Whole numbers of each row, beside where its windows begin."""


@dataclass(frozen=True)
class Span:
    """The arrays of a run of rows; C-contiguous, as rows come first.

    fp32: ``x`` (rows, hidden), the residual stream; ``queries``, ``mixed`` (rows, heads, dim); ``keys``,
    ``values`` (rows, key heads, dim); ``gate``, ``up`` (rows, intermediate). What enters products:
    ``normed`` (rows, hidden), ``attended`` (rows, heads * dim), ``gated`` (rows, intermediate).
    int32 (rows,): ``tokens``, ``positions``, ``lengths`` and ``ends`` of paths, ``slots``; ``table`` (rows,
    positions), the slots of paths; ``begins`` by window.
    """

    x: Tensor
    normed: Inputs
    queries: Tensor
    keys: Tensor
    values: Tensor
    mixed: Tensor
    attended: Inputs
    gate: Tensor
    up: Tensor
    gated: Inputs
    turns: Turns
    tokens: Tensor
    positions: Tensor
    lengths: Tensor
    ends: Tensor
    slots: Tensor
    table: Tensor
    splits: Splits
    begins: dict[int, Tensor]

    def paths(self, window: int) -> Paths:
        """What rows attend to in a layer with that window."""
        return Paths(self.table, self.ends, self.begins.get(window))

    def cut(self, begin: int, end: int) -> Span:
        """Rows ``begin`` to ``end``."""
        return Span(**{field.name: cut_rows(getattr(self, field.name), begin, end) for field in fields(self)})


class Workspace:
    """Spans of up to 64 rows. ``fit`` makes room for longer texts; spans from before it are stale then."""

    def __init__(self, config: ModelConfig, device: torch.device, *, quantised: bool) -> None:
        self._config, self._device, self._quantised = config, device, quantised
        self.windows = tuple(sorted({window for window in config.windows if window}))
        self.positions = 0
        self.kept: dict[int, Tensor] = {}
        self._spans: dict[tuple[int, int], Span] = {}

    def bytes_for(self, capacity: int) -> int:
        """Bytes that :meth:`fit` would ask for, while it still holds what there is; 0 if it is enough."""
        return 0 if capacity <= self.positions else self._bytes(capacity)

    def bytes_of_another(self, capacity: int) -> int:
        """Bytes of a workspace like this for sequences with that many positions, at most."""
        return self.fixed_bytes + self._bytes(capacity)

    def _bytes(self, capacity: int) -> int:
        config, splits = self._config, attention_splits(_padded(capacity))
        numbers = config.num_heads * splits * (config.head_dim + 2)
        return 4 * MAX_LINEAR_ROWS * (numbers + 2 * _padded(capacity))

    @property
    def fixed_bytes(self) -> int:
        """Bytes of what does not depend on the length of texts, at most."""
        config = self._config
        numbers = config.hidden_size + 3 * config.q_dim + 2 * config.kv_dim + 3 * config.intermediate_size
        return 4 * MAX_LINEAR_ROWS * (2 * numbers + config.vocab_size)

    def fit(self, capacity: int) -> None:
        """Make room for rows of sequences with that many positions."""
        if capacity <= self.positions:
            return
        first = self._spans.get((0, MAX_LINEAR_ROWS))
        positions, config = _padded(capacity), self._config
        shape = (config.num_heads, attention_splits(positions))
        # Field by field for all rows, then what is behind the text of each: one transfer brings both.
        count = len(FIELDS) + len(self.windows)
        self.numbers = self._ints(count * MAX_LINEAR_ROWS + MAX_LINEAR_ROWS * positions)
        by_name = dict(
            zip(
                (*FIELDS, *self.windows),
                self.numbers.view(-1)[: count * MAX_LINEAR_ROWS].view(count, -1),
                strict=True,
            )
        )
        fresh: dict[str, Any] = {
            "table": self._ints(MAX_LINEAR_ROWS, positions),
            "splits": Splits(
                self._floats(*shape, config.head_dim), self._floats(*shape), self._floats(*shape)
            ),
            "begins": {window: by_name[window] for window in self.windows},
            **{name: by_name[name] for name in FIELDS},
        }
        kept = self._fixed() if first is None else {f.name: getattr(first, f.name) for f in fields(first)}
        self._spans = {(0, MAX_LINEAR_ROWS): Span(**(kept | fresh))}
        self.positions = positions

    def keep(self, layers: Iterable[int]) -> None:
        """Room for states after ``layers`` on the way, (64, hidden) fp32 in ``kept``."""
        for layer in layers:
            if layer not in self.kept:
                self.kept[layer] = self._floats(self._config.hidden_size)

    def span(self, begin: int, end: int) -> Span:
        """The arrays of rows ``begin`` to ``end``: the same ones each time."""
        found = self._spans.get((begin, end))
        if found is None:
            found = self._spans[begin, end] = self._spans[0, MAX_LINEAR_ROWS].cut(begin, end)
        return found

    def tails(self, rows: int, depth: int) -> Tensor:
        """What follows the text on each row's path, (rows, depth) int32: behind the fields in ``numbers``."""
        begin = self.tails_begin
        return self.numbers[begin : begin + rows * depth].view(rows, depth)

    @property
    def tails_begin(self) -> int:
        """Where in ``numbers`` the tails are."""
        return (len(FIELDS) + len(self.windows)) * MAX_LINEAR_ROWS

    def inputs(self, width: int, *, quantised: bool) -> Inputs:
        """Room for 64 rows that enter a product."""
        shape = (MAX_LINEAR_ROWS, width)
        if not quantised:
            return torch.empty(shape, dtype=torch.bfloat16, device=self._device)
        q = torch.empty(shape, dtype=torch.int8, device=self._device)
        return QuantisedRows(q, self._floats(width // TILE_UNIT), self._floats(width // TILE_UNIT))

    def _fixed(self) -> dict[str, Any]:
        config = self._config
        heads, key_heads, dim = config.num_heads, config.num_kv_heads, config.head_dim
        wide = [
            self.inputs(width, quantised=self._quantised)
            for width in (config.hidden_size, config.q_dim, config.intermediate_size)
        ]
        return {
            "x": self._floats(config.hidden_size),
            **{name: self._floats(heads, dim) for name in ("queries", "mixed")},
            **{name: self._floats(key_heads, dim) for name in ("keys", "values")},
            **{name: self._floats(config.intermediate_size) for name in ("gate", "up")},
            **dict(zip(("normed", "attended", "gated"), wide, strict=True)),
            "turns": Turns(self._floats(dim // 2), self._floats(dim // 2)),
        }

    def _floats(self, *shape: int) -> Tensor:
        return torch.empty(MAX_LINEAR_ROWS, *shape, device=self._device)

    def _ints(self, *shape: int) -> Tensor:
        return torch.zeros(shape, dtype=torch.int32, device=self._device)


def cut_inputs(inputs: Inputs, begin: int, end: int) -> Inputs:
    """Rows ``begin`` to ``end`` of what enters a product."""
    return cut_rows(inputs, begin, end)


def cut_rows(value: Any, begin: int, end: int) -> Any:
    """Rows ``begin`` to ``end`` of an array, or of each one in a record or a dictionary."""
    if isinstance(value, Tensor):
        return value[begin:end]
    if isinstance(value, dict):
        return {key: cut_rows(one, begin, end) for key, one in value.items()}
    return type(value)(*(cut_rows(getattr(value, field.name), begin, end) for field in fields(value)))


def _padded(positions: int) -> int:
    """A few sizes only, so that longer texts do not ask for a table each."""
    return max(256, 1 << (positions - 1).bit_length())


def padded_depth(count: int) -> int:
    """How many slots are sent of a path with ``count``: a few sizes, since each has launches of its own."""
    return 1 << (max(1, count) - 1).bit_length()
