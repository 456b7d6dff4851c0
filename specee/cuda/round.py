"""A decode round's decisions on the device (csrc/cuda/round.cuh): what runs, what is drafted, what stays."""

from __future__ import annotations

from dataclasses import dataclass

from specee.cuda.acceptance import Accepted, Draws
from specee.cuda.arrays import Array, checked
from specee.cuda.given_record import GIVEN_PLAN
from specee.cuda.launcher import Launcher, i32
from specee.cuda.program import Condition
from specee.cuda.record import ROUND_LAYERS, ROUND_PLAN, ROUND_RESULT, ROUND_SEQUENCES, ROUND_TOKENS
from specee.errors import ConfigurationError

NO_DRAFT = -3  # the token of a row that nobody drafted
_THREADS = 256


@dataclass(frozen=True)
class RoundState:
    """What a round works on.

    ``plan`` and ``result``: uint8, records of :mod:`specee.cuda.record`. ``runs`` (layers,) int32: whether a
    layer runs; ``drafts`` (1,) int32: whether somebody drafts. Each sequence has as many rows as all others,
    its newest committed one and then room for drafts: ``tokens`` (rows,) int32 and ``draws``, of all rows;
    ``newest`` (sequences,) int32, the last row of each that has a token.
    """

    plan: Array
    result: Array
    runs: Array
    drafts: Array
    tokens: Array
    draws: Draws
    newest: Array

    def sizes(self) -> tuple[int, int, int]:
        """Layers, sequences and rows of each sequence. Raises ConfigurationError."""
        checked("state.plan", self.plan, "uint8", (ROUND_PLAN.itemsize,))
        checked("state.result", self.result, "uint8", (ROUND_RESULT.itemsize,))
        (layers,) = checked("state.runs", self.runs, "int32", (None,))
        checked("state.drafts", self.drafts, "int32", (1,))
        (sequences,) = checked("state.newest", self.newest, "int32", (None,))
        (rows,) = checked("state.tokens", self.tokens, "int32", (None,))
        checked("state.draws.temperatures", self.draws.temperatures, "float64", (rows,))
        checked("state.draws.seeds", self.draws.seeds, "uint64", (rows,))
        checked("state.draws.positions", self.draws.positions, "int64", (rows,))
        each = rows // sequences if sequences else 0
        if (
            not (1 <= layers <= ROUND_LAYERS and 1 <= sequences <= ROUND_SEQUENCES)
            or not 1 <= each <= ROUND_TOKENS
            or each * sequences != rows
        ):
            raise ConfigurationError(
                f"{layers} layers, {sequences} sequences, {rows} rows: allowed are 1..{ROUND_LAYERS}, "
                f"1..{ROUND_SEQUENCES}, and 1..{ROUND_TOKENS} rows for each sequence"
            )
        return layers, sequences, each

    def layer_runs(self, layer: int) -> Condition:
        """The plan has the layer."""
        return Condition(self.runs, layer)

    def drafts_made(self) -> Condition:
        """Somebody still drafts."""
        return Condition(self.drafts)


@dataclass(frozen=True)
class Drafted:
    """One draft of each sequence, after its newest row.

    ``tokens`` int32 and ``confidences`` fp32, (sequences,); those of sequences that do not draft are ignored.
    """

    tokens: Array
    confidences: Array


def begin_round(launcher: Launcher, state: RoundState) -> None:
    """Take the plan apart: conditions, and each row's token and draw. Raises ConfigurationError."""
    layers, _, each = state.sizes()
    draws = state.draws
    arrays = [state.plan, state.result, state.runs, state.drafts, state.tokens]
    arrays += [draws.temperatures, draws.seeds, draws.positions, state.newest]
    launcher.launch("begin_round", (1, 1, 1), _THREADS, [*arrays, i32(layers), i32(each)])


@dataclass(frozen=True)
class ChainRows:
    """What layers have to know of rows (:mod:`specee.cuda.rows`), (rows,) int32 each."""

    tokens: Array
    positions: Array
    lengths: Array
    ends: Array
    slots: Array


def chain_rows(launcher: Launcher, state: RoundState, which: Array | None, out: ChainRows) -> None:
    """Of all rows, or of those that ``which`` (any,) int32 numbers: position p in slot p of its sequence.

    A row without a draft is token 0, in a slot of its own. Raises ConfigurationError.
    """
    _, sequences, each = state.sizes()
    rows = sequences * each
    if which is not None:
        (rows,) = checked("which", which, "int32", (None,))
    arrays = [out.tokens, out.positions, out.lengths, out.ends, out.slots]
    for name, array in zip(("tokens", "positions", "lengths", "ends", "slots"), arrays, strict=True):
        checked(f"out.{name}", array, "int32", (rows,))
    inputs = [state.plan, state.tokens, which]
    launcher.launch("chain_rows", (1, 1, 1), _THREADS, [*inputs, *arrays, i32(rows), i32(each)])


def window_begins(launcher: Launcher, ends: Array, begins: Array, window: int) -> None:
    """``begins`` (rows,) int32 of ``window`` positions before ``ends``. Raises ConfigurationError."""
    (rows,) = checked("ends", ends, "int32", (None,))
    checked("begins", begins, "int32", (rows,))
    launcher.launch("window_begins", (1, 1, 1), _THREADS, [ends, begins, i32(rows), i32(window)])


def take_drafts(launcher: Launcher, state: RoundState, drafted: Drafted) -> None:
    """Put drafts behind their sequences' rows, and see who drafts on. Raises ConfigurationError."""
    _, sequences, each = state.sizes()
    checked("drafted.tokens", drafted.tokens, "int32", (sequences,))
    checked("drafted.confidences", drafted.confidences, "float32", (sequences,))
    arrays = [state.plan, state.result, drafted.tokens, drafted.confidences]
    arrays += [state.tokens, state.newest, state.drafts]
    launcher.launch("take_drafts", (1, 1, 1), _THREADS, [*arrays, i32(each)])


def give_drafts(launcher: Launcher, state: RoundState, given: Array) -> None:
    """Put drafts that are there behind their sequences' rows.

    ``given``: uint8, a record of :mod:`specee.cuda.given_record`. Raises ConfigurationError.
    """
    _, _, each = state.sizes()
    checked("given", given, "uint8", (GIVEN_PLAN.itemsize,))
    arrays = [state.plan, given, state.result, state.tokens, state.newest]
    launcher.launch("give_drafts", (1, 1, 1), _THREADS, [*arrays, i32(each)])


def end_round(launcher: Launcher, state: RoundState, accepted: Accepted) -> None:
    """Write the result: accepted drafts and the token after them. Raises ConfigurationError."""
    layers, sequences, each = state.sizes()
    checked("accepted.path", accepted.path, "int32", (sequences * each,))
    checked("accepted.counts", accepted.counts, "int32", (sequences,))
    checked("accepted.next_tokens", accepted.next_tokens, "int32", (sequences,))
    arrays = [state.plan, state.result, state.runs, state.tokens]
    arrays += [accepted.path, accepted.counts, accepted.next_tokens]
    launcher.launch("end_round", (1, 1, 1), _THREADS, [*arrays, i32(layers), i32(each)])
