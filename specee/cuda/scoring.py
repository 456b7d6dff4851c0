"""Candidate scoring and SpecEE's exit predictor on the device (csrc/cuda/scoring.cuh, predictor.cuh)."""

from __future__ import annotations

from dataclasses import dataclass

from specee.cuda.arrays import Array, checked
from specee.cuda.launcher import Argument, Launcher, f32, i32
from specee.cuda.tiles import MAX_HIDDEN, SCORE_CANDIDATES, SCORE_THREADS
from specee.errors import ConfigurationError


@dataclass(frozen=True)
class Head:
    """Final norm (hidden,) fp32, and LM head ``weights`` (vocab, hidden) bf16; hidden a multiple of 8."""

    norm: Array
    weights: Array
    eps: float

    def shape(self) -> tuple[int, int]:
        """(vocab, hidden). Raises ConfigurationError."""
        vocab, hidden = checked("head.weights", self.weights, "bfloat16", (None, None))
        checked("head.norm", self.norm, "float32", (hidden,))
        if hidden % 8 or not 0 < hidden <= MAX_HIDDEN:
            raise ConfigurationError(f"hidden={hidden}: allowed are multiples of 8 up to {MAX_HIDDEN}")
        return vocab, hidden


@dataclass(frozen=True)
class States:
    """Layer outputs ``values`` (any, hidden) fp32, and which ``rows`` (rows,) int32; without, the first."""

    values: Array
    rows: Array | None = None

    def check(self, hidden: int, number: int) -> None:
        """Raise ConfigurationError unless there are ``number`` rows."""
        available, _ = checked("states.values", self.values, "float32", (None, hidden))
        if self.rows is not None:
            checked("states.rows", self.rows, "int32", (number,))
        elif available < number:
            raise ConfigurationError(f"states of {available} rows: tokens have {number}")


@dataclass(frozen=True)
class Mlp:
    """A predictor's weights, fp32.

    ``up`` (3k, units), ``up_bias`` and ``down`` (units,), ``down_bias`` (1,).
    """

    up: Array
    up_bias: Array
    down: Array
    down_bias: Array

    def units(self, features: int) -> int:
        """Hidden units. Raises ConfigurationError."""
        _, units = checked("mlp.up", self.up, "float32", (features, None))
        checked("mlp.up_bias", self.up_bias, "float32", (units,))
        checked("mlp.down", self.down, "float32", (units,))
        checked("mlp.down_bias", self.down_bias, "float32", (1,))
        return units


@dataclass(frozen=True)
class Prediction:
    """What the predictor writes.

    ``logits`` and ``probabilities`` (rows, k) fp32; (rows,): ``confidences`` fp32, and ``decisions`` int32,
    1 for leaving.
    """

    logits: Array
    probabilities: Array
    confidences: Array
    decisions: Array


def score_candidates(launcher: Launcher, head: Head, states: States, tokens: Array, logits: Array) -> None:
    """``logits`` (rows, k) fp32 of ``tokens`` (rows, k) int32.

    A token beyond the vocabulary scores -inf. Raises ConfigurationError.
    """
    vocab, hidden = head.shape()
    number, count = checked("tokens", tokens, "int32", (None, None))
    checked("logits", logits, "float32", (number, count))
    states.check(hidden, number)
    inputs = [states.values, states.rows, head.norm, head.weights, tokens, logits]
    numbers = [i32(count), i32(vocab), i32(hidden), f32(head.eps)]
    launcher.launch("score_candidates", (number, 1, 1), SCORE_THREADS, [*inputs, *numbers])


def score_grouped(
    launcher: Launcher,
    head: Head,
    states: States,
    tokens: Array,
    offsets: Array,
    logits: Array,
) -> None:
    """The same where row r has ``tokens[offsets[r]:offsets[r + 1]]``; ``tokens`` and ``logits`` (any,).

    ``offsets`` (rows + 1,) int32. Raises ConfigurationError.
    """
    vocab, hidden = head.shape()
    (total,) = checked("tokens", tokens, "int32", (None,))
    (ends,) = checked("offsets", offsets, "int32", (None,))
    checked("logits", logits, "float32", (total,))
    states.check(hidden, ends - 1)
    inputs = [states.values, states.rows, head.norm, head.weights, tokens, offsets, logits]
    launcher.launch(
        "score_grouped", (ends - 1, 1, 1), SCORE_THREADS, [*inputs, i32(vocab), i32(hidden), f32(head.eps)]
    )


def exit_predictor(
    launcher: Launcher,
    head: Head,
    mlp: Mlp,
    states: States,
    tokens: Array,
    out: Prediction,
    *,
    before: Array | None = None,
    threshold: float = 0.5,
) -> None:
    """Whether rows may leave at this layer (SpecEE, arXiv 2504.08850, T1); k is 1 to 16.

    ``before`` (rows, k): ``out.probabilities`` of the layer checked before, None at the first; it may be the
    same array. A row with a token beyond the vocabulary never leaves, and its confidence is NaN.
    Raises ConfigurationError.
    """
    vocab, hidden = head.shape()
    number, count = checked("tokens", tokens, "int32", (None, None))
    if not 1 <= count <= SCORE_CANDIDATES:
        raise ConfigurationError(f"{count} candidates a row: allowed are 1..{SCORE_CANDIDATES}")
    units = mlp.units(3 * count)
    states.check(hidden, number)
    for name, array in (
        ("out.logits", out.logits),
        ("out.probabilities", out.probabilities),
        ("before", before),
    ):
        if array is not None:
            checked(name, array, "float32", (number, count))
    checked("out.confidences", out.confidences, "float32", (number,))
    checked("out.decisions", out.decisions, "int32", (number,))
    arguments: list[Argument] = [
        *(states.values, states.rows, head.norm, head.weights, tokens, before),
        *(mlp.up, mlp.up_bias, mlp.down, mlp.down_bias),
        *(out.logits, out.probabilities, out.confidences, out.decisions),
        *(i32(count), i32(vocab), i32(hidden), i32(units), f32(head.eps), f32(threshold)),
    ]
    launcher.launch("exit_predictor", (number, 1, 1), SCORE_THREADS, arguments)
