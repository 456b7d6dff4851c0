"""A drafter block's rows in a decode round, on the device (csrc/cuda/block_round.cuh)."""

from __future__ import annotations

from dataclasses import dataclass

from specee.cuda.acceptance import Draws
from specee.cuda.arrays import Array, checked
from specee.cuda.block_record import BLOCK_PLAN
from specee.cuda.launcher import Launcher, i32
from specee.cuda.program import Condition
from specee.cuda.round import ChainRows, RoundState

_THREADS = 256


@dataclass(frozen=True)
class BlockState:
    """What the block's part of a round works on.

    ``plan``: uint8, a record of :mod:`specee.cuda.block_record`; ``remembers`` (1,) int32: whether there is
    text before the newest rows.
    """

    plan: Array
    remembers: Array

    def check(self) -> None:
        """Raises ConfigurationError."""
        checked("state.plan", self.plan, "uint8", (BLOCK_PLAN.itemsize,))
        checked("state.remembers", self.remembers, "int32", (1,))

    def text_before(self) -> Condition:
        """There is text before the newest rows."""
        return Condition(self.remembers)


def text_rows(
    launcher: Launcher, state: BlockState, tokens: Array, places: Array, slots: Array, each: int
) -> None:
    """Rows of text, ``each`` of every sequence: ``tokens``, ``places`` and ``slots`` (rows,) int32.

    Raises ConfigurationError.
    """
    state.check()
    (rows,) = checked("tokens", tokens, "int32", (None,))
    checked("places", places, "int32", (rows,))
    checked("slots", slots, "int32", (rows,))
    arrays = [state.plan, tokens, places, slots, state.remembers]
    launcher.launch("block_text_rows", (1, 1, 1), _THREADS, [*arrays, i32(rows), i32(each)])


def newest_rows(launcher: Launcher, state: BlockState, whole: RoundState, out: ChainRows) -> None:
    """Each sequence's newest row of the round, (sequences,) int32 each. Raises ConfigurationError."""
    state.check()
    _, sequences, each = whole.sizes()
    arrays = [out.tokens, out.positions, out.lengths, out.ends, out.slots]
    for name, array in zip(("tokens", "positions", "lengths", "ends", "slots"), arrays, strict=True):
        checked(f"out.{name}", array, "int32", (sequences,))
    inputs = [state.plan, whole.tokens, whole.newest]
    launcher.launch("block_newest_rows", (1, 1, 1), _THREADS, [*inputs, *arrays, i32(sequences), i32(each)])


def draws_of(launcher: Launcher, which: Array, draws: Draws, out: Draws) -> None:
    """``out`` (rows,): rows ``which`` (rows,) int32 of ``draws`` (any,). Raises ConfigurationError."""
    (rows,) = checked("which", which, "int32", (None,))
    arrays = []
    for name, found, count in (("draws", draws, None), ("out", out, rows)):
        checked(f"{name}.temperatures", found.temperatures, "float64", (count,))
        checked(f"{name}.seeds", found.seeds, "uint64", (count,))
        checked(f"{name}.positions", found.positions, "int64", (count,))
        arrays += [found.temperatures, found.seeds, found.positions]
    launcher.launch("draws_of", (1, 1, 1), _THREADS, [which, *arrays, i32(rows)])
