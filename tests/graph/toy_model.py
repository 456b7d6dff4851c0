"""A small model of the package's own ops: residual layers and a head."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from specee.cuda import acceptance, linear
from specee.cuda.decode import Model
from specee.cuda.launcher import Launcher
from specee.cuda.record import ROUND_PLAN, ROUND_RESULT
from specee.cuda.round import Drafted, RoundState
from specee.cuda.tiles import vocab_splits
from tests.cuda.numbers import to_bf16
from tests.graph.host_arrays import put

HIDDEN, VOCAB = 32, 48


Put = Callable[[np.ndarray], Any]


def state(layers: int, sequences: int, each: int, put: Put = put) -> RoundState:
    """Arrays full of what no kernel should read."""
    rows = sequences * each

    def full(count: int, dtype: Any, value: float = -7) -> Any:
        return put(np.full(count, value, dtype))

    return RoundState(
        plan=full(ROUND_PLAN.itemsize, np.uint8, 255),
        result=full(ROUND_RESULT.itemsize, np.uint8, 255),
        runs=full(layers, np.int32),
        drafts=full(1, np.int32),
        tokens=full(rows, np.int32),
        draws=acceptance.Draws(
            full(rows, np.float64, np.nan), full(rows, np.uint64, 7), full(rows, np.int64)
        ),
        newest=full(sequences, np.int32),
    )


def _normal(rng: np.random.Generator, scale: float, shape: tuple[int, int]) -> np.ndarray:
    return to_bf16(rng.normal(0, scale, shape).astype(np.float32))


@dataclass
class ToyModel:
    """``depth`` layers, and a head.

    Rows' states are of no text: each begins as ``states``, (rows, hidden). Drafts are given, too: ``drafts``
    (sequences,), always the same, with ``confidences``.
    """

    states: np.ndarray
    depth: int
    sequences: int
    rng: np.random.Generator
    drafts: np.ndarray | None = None
    confidences: np.ndarray | None = None
    put: Put = put
    layers: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        rng, rows, sequences = self.rng, len(self.states), self.sequences
        each = rows // sequences
        # bf16 on the host, too: tests reckon with it.
        self.matrices = [_normal(rng, HIDDEN**-0.5, (HIDDEN, HIDDEN)) for _ in range(self.depth)]
        self.vocabulary = _normal(rng, 1.0, (VOCAB, HIDDEN))
        self.layers = [self.put(matrix) for matrix in self.matrices]
        self.head_of = self.put(self.vocabulary)
        self.h, self.narrow = self.put(self.states), self._zeros((rows, HIDDEN), np.uint16)
        self.logits = self._zeros((rows, VOCAB))
        pieces = vocab_splits(VOCAB)
        self.pieces = acceptance.Pieces(
            self._zeros((rows, pieces), np.float64), self._zeros((rows, pieces), np.int32)
        )
        self.accepted = acceptance.Accepted(
            *(self._zeros((n,), np.int32) for n in (rows, rows, sequences, sequences))
        )
        self.parents = self.put((np.arange(rows) - 1).astype(np.int32))
        self.firsts = self.put(np.arange(0, rows + 1, each).astype(np.int32))
        if self.drafts is not None and self.confidences is not None:
            self.drafted = Drafted(
                self.put(self.drafts.astype(np.int32)), self.put(self.confidences.astype(np.float32))
            )

    def _zeros(self, shape: tuple[int, ...], dtype: Any = np.float32) -> Any:
        return self.put(np.zeros(shape, dtype))

    def begin(self) -> None:
        """The states of a new round."""
        self.h[...] = self.put(self.states)

    def parts(self, state: RoundState) -> Model:
        """What a round is recorded with."""

        def layer(launcher: Launcher, number: int) -> None:
            linear.round_rows(launcher, self.h, self.narrow)
            linear.linear_bf16(launcher, self.narrow, self.layers[number], self.h, add=True)

        def head(launcher: Launcher) -> acceptance.Accepted:
            linear.round_rows(launcher, self.h, self.narrow)
            linear.linear_bf16(launcher, self.narrow, self.head_of, self.logits)
            acceptance.target_pieces(launcher, self.logits, state.draws, self.pieces)
            drafts = acceptance.Drafts(state.tokens, self.parents, self.firsts)
            acceptance.accept(launcher, self.pieces, drafts, self.accepted)
            return self.accepted

        return Model(
            layer,
            head,
            None if self.drafts is None else lambda _: self.drafted,
        )
