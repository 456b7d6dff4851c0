"""A small model of the package's own ops: residual layers, a scripted predictor behind each, and a head."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from specee.cuda import acceptance, linear, scoring
from specee.cuda.decode import Model
from specee.cuda.launcher import Launcher
from specee.cuda.record import ROUND_PLAN, ROUND_RESULT
from specee.cuda.round import Asked, Drafted, RoundState
from specee.cuda.tiles import vocab_splits
from tests.cuda.numbers import from_bf16, to_bf16
from tests.graph.host_arrays import put

HIDDEN, VOCAB, CANDIDATES = 32, 48, 3


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
        checks=full(layers, np.int32),
        flags=full(2, np.int32),
        tokens=full(rows, np.int32),
        draws=acceptance.Draws(
            full(rows, np.float64, np.nan), full(rows, np.uint64, 7), full(rows, np.int64)
        ),
        newest=full(sequences, np.int32),
    )


def chances(scripted: list[float]) -> list[np.float32]:
    """Biases with which a predictor of no weights says ``scripted``."""
    return [np.float32(np.log(p / (1 - p))) for p in scripted]


def _normal(rng: np.random.Generator, scale: float, shape: tuple[int, int]) -> np.ndarray:
    return to_bf16(rng.normal(0, scale, shape).astype(np.float32))


def _rounded(row: np.ndarray) -> np.ndarray:
    return from_bf16(to_bf16(row.astype(np.float32))).astype(np.float64)


@dataclass
class ToyModel:
    """``says[l]``: what the predictor behind layer l says, of every sequence.

    Rows' states are of no text: each begins as ``states``, (rows, hidden). Drafts are given, too: ``drafts``
    (sequences,), always the same, with ``confidences``.
    """

    states: np.ndarray
    says: list[float]
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
        self.matrices = [_normal(rng, HIDDEN**-0.5, (HIDDEN, HIDDEN)) for _ in self.says]
        self.vocabulary = _normal(rng, 1.0, (VOCAB, HIDDEN))
        self.candidates = rng.integers(0, VOCAB, (sequences, CANDIDATES)).astype(np.int32)
        self.layers = [self.put(matrix) for matrix in self.matrices]
        self.head_of = scoring.Head(self.put(np.ones(HIDDEN, np.float32)), self.put(self.vocabulary), 1e-5)
        self.h, self.narrow = self.put(self.states), self._zeros((rows, HIDDEN), np.uint16)
        self.newest = self.put((np.arange(sequences) * each).astype(np.int32))
        self.asked = self.put(self.candidates)
        self.prediction = scoring.Prediction(
            *(self._zeros((sequences, CANDIDATES)) for _ in range(2)),
            self._zeros((sequences,)),
            self._zeros((sequences,), np.int32),
        )
        self.mlps = [self._mlp(bias) for bias in chances(self.says)]
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

    def _mlp(self, bias: np.float32) -> scoring.Mlp:
        zeros = [self._zeros((32,)) for _ in range(2)]
        return scoring.Mlp(self._zeros((3 * CANDIDATES, 32)), *zeros, self.put(np.full(1, bias)))

    def begin(self) -> None:
        """The states of a new round."""
        self.h[...] = self.put(self.states)

    def best(self, sequence: int, layers: int) -> int:
        """The likeliest candidate of a sequence's first row after some layers, in double precision."""
        row = self.states[sequence * (len(self.states) // self.sequences)].astype(np.float64)
        for matrix in self.matrices[:layers]:
            row = row + from_bf16(matrix).astype(np.float64) @ _rounded(row)
        row = _rounded(row / np.sqrt(np.mean(row**2) + 1e-5))
        candidates = self.candidates[sequence]
        return int(candidates[np.argmax(from_bf16(self.vocabulary)[candidates].astype(np.float64) @ row)])

    def parts(self, state: RoundState, checkable: tuple[int, ...]) -> Model:
        """What a round is recorded with."""

        def layer(launcher: Launcher, number: int) -> None:
            linear.round_rows(launcher, self.h, self.narrow)
            linear.linear_bf16(launcher, self.narrow, self.layers[number], self.h, add=True)

        def predictor(launcher: Launcher, number: int) -> Asked:
            states = scoring.States(self.h, self.newest)
            mlp, out = self.mlps[number], self.prediction
            scoring.exit_predictor(launcher, self.head_of, mlp, states, self.asked, out)
            return Asked(self.asked, out.logits, out.confidences)

        def head(launcher: Launcher) -> acceptance.Accepted:
            linear.round_rows(launcher, self.h, self.narrow)
            linear.linear_bf16(launcher, self.narrow, self.head_of.weights, self.logits)
            acceptance.target_pieces(launcher, self.logits, state.draws, self.pieces)
            drafts = acceptance.Drafts(state.tokens, self.parents, self.firsts)
            acceptance.accept(launcher, self.pieces, drafts, self.accepted)
            return self.accepted

        return Model(
            layer,
            head,
            predictor if checkable else None,
            checkable,
            None if self.drafts is None else lambda _: self.drafted,
        )
