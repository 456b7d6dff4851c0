"""A round's decisions where rows may leave early, on the device (csrc/cuda/exit_round.cuh)."""

from __future__ import annotations

from dataclasses import dataclass

from specee.cuda.acceptance import Draws
from specee.cuda.arrays import Array, checked
from specee.cuda.exit_record import EXIT_CANDIDATES, EXIT_PLAN, EXIT_RESULT, EXIT_ROWS
from specee.cuda.launcher import Launcher, i32
from specee.cuda.program import Condition
from specee.cuda.record import ROUND_LAYERS, ROUND_SEQUENCES
from specee.cuda.round import ChainRows
from specee.cuda.tiles import ceil_div
from specee.errors import ConfigurationError

_THREADS = 256
_HEAD, _CONFIRMS = 0, 1


@dataclass(frozen=True)
class ExitState:
    """What a round works on; all int32 but where it says something else.

    ``plan`` and ``result``: uint8, records of :mod:`specee.cuda.exit_record`. ``runs``, ``checks`` and
    ``enters`` (layers,): whether a layer runs, whether a predictor is asked after it, whether rows wait
    there; ``asked`` (layers, sequences), about whom; ``flags`` (2,). Each sequence has as many rows as all
    others, its newest the last: ``rows`` as layers take them, ``begins``, the layer that each waits at, and
    ``reach`` (rows,), the ends of their paths. Of sequences: ``draws``, ``willing``, ``left``;
    ``candidates`` and ``probabilities``, fp32, (sequences, k).
    """

    plan: Array
    result: Array
    runs: Array
    checks: Array
    enters: Array
    asked: Array
    flags: Array
    rows: ChainRows
    begins: Array
    reach: Array
    draws: Draws
    willing: Array
    left: Array
    candidates: Array
    probabilities: Array

    def sizes(self) -> tuple[int, int, int, int]:
        """Layers, sequences, rows of each sequence and candidates. Raises ConfigurationError."""
        checked("state.plan", self.plan, "uint8", (EXIT_PLAN.itemsize,))
        checked("state.result", self.result, "uint8", (EXIT_RESULT.itemsize,))
        layers, sequences = checked("state.asked", self.asked, "int32", (None, None))
        for name, array, size in (
            *(("runs", self.runs, layers), ("checks", self.checks, layers), ("enters", self.enters, layers)),
            *(("flags", self.flags, 2), ("willing", self.willing, sequences), ("left", self.left, sequences)),
        ):
            checked(f"state.{name}", array, "int32", (size,))
        (rows,) = checked("state.begins", self.begins, "int32", (None,))
        own = self.rows
        for name, array in (
            *(("reach", self.reach), ("rows.tokens", own.tokens), ("rows.positions", own.positions)),
            *(("rows.lengths", own.lengths), ("rows.ends", own.ends), ("rows.slots", own.slots)),
        ):
            checked(f"state.{name}", array, "int32", (rows,))
        checked("state.draws.temperatures", self.draws.temperatures, "float64", (sequences,))
        checked("state.draws.seeds", self.draws.seeds, "uint64", (sequences,))
        checked("state.draws.positions", self.draws.positions, "int64", (sequences,))
        _, count = checked("state.candidates", self.candidates, "int32", (sequences, None))
        checked("state.probabilities", self.probabilities, "float32", (sequences, count))
        each = rows // sequences if sequences else 0
        if (
            not (1 <= layers <= ROUND_LAYERS and 1 <= sequences <= ROUND_SEQUENCES)
            or not (1 <= each <= EXIT_ROWS and 1 <= count <= EXIT_CANDIDATES)
            or each * sequences != rows
        ):
            raise ConfigurationError(
                f"{layers} layers, {sequences} sequences, {rows} rows, {count} candidates: allowed are "
                f"1..{ROUND_LAYERS}, 1..{ROUND_SEQUENCES}, 1..{EXIT_ROWS} rows for each sequence, and "
                f"1..{EXIT_CANDIDATES}"
            )
        return layers, sequences, each, count

    def layer_runs(self, layer: int) -> Condition:
        """Somebody is still there to go through it."""
        return Condition(self.runs, layer)

    def layer_checked(self, layer: int) -> Condition:
        """Somebody is asked about after the layer."""
        return Condition(self.checks, layer)

    def rows_enter(self, layer: int) -> Condition:
        """Rows wait before the layer."""
        return Condition(self.enters, layer)

    def head_runs(self) -> Condition:
        """Somebody has not left before the head."""
        return Condition(self.flags, _HEAD)

    def somebody_willing(self) -> Condition:
        """The head has to confirm what a predictor says."""
        return Condition(self.flags, _CONFIRMS)


def begin_exits(launcher: Launcher, state: ExitState) -> None:
    """Take the plan apart. Raises ConfigurationError."""
    layers, _, each, count = state.sizes()
    rows, draws = state.rows, state.draws
    arrays = [state.plan, state.result, state.runs, state.checks, state.enters, state.asked, state.flags]
    arrays += [rows.tokens, rows.positions, rows.lengths, rows.ends, rows.slots, state.begins, state.reach]
    arrays += [draws.temperatures, draws.seeds, draws.positions]
    arrays += [state.left, state.candidates, state.probabilities]
    numbers = [i32(layers), i32(each), i32(count)]
    launcher.launch("begin_exits", (1, 1, 1), _THREADS, [*arrays, *numbers])


def enter_rows(launcher: Launcher, state: ExitState, x: Array, states: Array, layer: int) -> None:
    """Rows that wait before ``layer`` take part from here on: ``x`` (rows, hidden) fp32 = ``states``.

    Raises ConfigurationError.
    """
    layers, sequences, each, _ = state.sizes()
    rows, hidden = checked("x", x, "float32", (sequences * each, None))
    checked("states", states, "float32", (rows, hidden))
    _check_layer(layer, layers)
    arrays = [x, states, state.begins, state.rows.positions, state.rows.slots, state.rows.ends]
    launcher.launch("enter_rows", _parts(rows, hidden), _THREADS, [*arrays, i32(hidden), i32(layer)])


def willing_exits(launcher: Launcher, state: ExitState, chances: Array, layer: int) -> None:
    """Who would leave after ``layer`` by ``chances`` (sequences,) fp32. Raises ConfigurationError."""
    layers, sequences, _, _ = state.sizes()
    checked("chances", chances, "float32", (sequences,))
    _check_layer(layer, layers)
    arrays = [state.plan, state.asked[layer], chances, state.left, state.willing, state.flags]
    launcher.launch("willing_exits", (1, 1, 1), _THREADS, arrays)


def confirm_exits(launcher: Launcher, state: ExitState, chances: Array, targets: Array, layer: int) -> None:
    """Those who are willing leave, whose token by the whole head, ``targets``, is among their candidates.

    ``chances`` fp32 and ``targets`` int32 (sequences,). With the last of them no later layer runs, and no
    head. Raises ConfigurationError.
    """
    layers, sequences, _, count = state.sizes()
    checked("chances", chances, "float32", (sequences,))
    checked("targets", targets, "int32", (sequences,))
    _check_layer(layer, layers)
    arrays = [state.plan, state.result, state.willing, chances, targets, state.candidates, state.left]
    arrays += [state.runs, state.checks, state.flags]
    numbers = [i32(layer), i32(layers), i32(count)]
    launcher.launch("confirm_exits", (1, 1, 1), _THREADS, [*arrays, *numbers])


def keep_left(launcher: Launcher, state: ExitState, x: Array, out: Array, done: int) -> None:
    """``out`` = ``x`` (rows, hidden) fp32 for rows of sequences that left after ``done`` layers.

    0 is for those that have not left. Raises ConfigurationError.
    """
    _, sequences, each, _ = state.sizes()
    rows, hidden = checked("x", x, "float32", (sequences * each, None))
    checked("out", out, "float32", (rows, hidden))
    numbers = [i32(each), i32(hidden), i32(done)]
    launcher.launch("keep_left", _parts(rows, hidden), _THREADS, [x, state.left, out, *numbers])


def end_exits(launcher: Launcher, state: ExitState, targets: Array) -> None:
    """Write the result; ``targets`` (sequences,) int32 after all layers. Raises ConfigurationError."""
    layers, sequences, _, _ = state.sizes()
    checked("targets", targets, "int32", (sequences,))
    arrays = [state.plan, state.result, state.runs, state.flags, state.left, targets, i32(layers)]
    launcher.launch("end_exits", (1, 1, 1), _THREADS, arrays)


def _parts(rows: int, hidden: int) -> tuple[int, int, int]:
    return ceil_div(hidden, _THREADS), rows, 1


def _check_layer(layer: int, layers: int) -> None:
    if not 0 <= layer < layers:
        raise ConfigurationError(f"layer {layer}: allowed are 0..{layers - 1}")
