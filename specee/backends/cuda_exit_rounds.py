"""Early exits of the CUDA backend in one launch, where a graph of the driver can do what is asked for.

A round takes the newest row of each sequence through the layers, with all that wait before it, asks the
predictors on the way, and has the head confirm what they say (Xu et al., "SpecEE", ISCA 2025). What there is
then is what steps would have left: a sequence's rows have done as many layers as its newest one, whatever
layers others of the call went on to.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from collections.abc import Sequence as Seq
from typing import NamedTuple

import torch
from torch import Tensor

from specee.backends.calls import Exit, ExitCall, Exits
from specee.backends.cuda_exit_round import ExitShape, ModelExits
from specee.backends.cuda_exits import CudaExits
from specee.backends.cuda_head import WORD, is_plain
from specee.backends.cuda_recorded import KeptRounds, Parts, check_tokens
from specee.backends.reference_sequence import ReferenceSequence, Row
from specee.cuda.exit_record import EXIT_ROWS, ExitPlan, ExitRun
from specee.cuda.exit_round import ExitRound
from specee.cuda.graph import Means
from specee.cuda.tiles import MAX_LINEAR_ROWS
from specee.errors import CapacityError

_ROWS = (1, 8, EXIT_ROWS)  # of a sequence, that rounds have room for: a product takes them by eights


class _Waiting(NamedTuple):
    """A sequence, and its rows that are not complete: neighbours, the newest is the last."""

    sequence: ReferenceSequence
    rows: list[Row]


class ExitLaunch:
    """A round that is recorded, with its arrays; ``states`` as of :class:`.ModelExits`, of the latest run."""

    def __init__(self, parts: ModelExits, means: Means) -> None:
        self._parts, self.states = parts, parts.states
        self._round = ExitRound(parts.state, parts.model(), means)
        self._nothing = torch.zeros_like(parts.entering[0])

    def run(self, waiting: Seq[_Waiting], plans: Seq[ExitPlan]) -> ExitRun:
        """What came of it.

        Raises CapacityError where a sequence has no room for its rows, DeviceError, and ConfigurationError as
        :meth:`.ExitRound.run` does.
        """
        for plan, sequence in zip(plans, self._parts.sequences, strict=False):
            if plan.position >= sequence.capacity:
                raise CapacityError(
                    f"a row at position {plan.position}, in a sequence of {sequence.capacity}: allowed are "
                    f"positions up to {sequence.capacity - 1}; reserve a longer sequence"
                )
        states = [row.hidden for one in waiting for row in one.rows]
        if any(state is not None for state in states):
            torch.stack(list(self._placed(waiting)), out=self._parts.entering)
        return self._round.run(plans)

    def _placed(self, waiting: Seq[_Waiting]) -> Iterator[Tensor]:
        for one in waiting:
            yield from [self._nothing] * (self._parts.each - len(one.rows))
            yield from (self._nothing if row.hidden is None else row.hidden for row in one.rows)


class ExitRounds:
    """See the module; rounds are ``kept`` with those of other kinds, and ``taken`` in one launch."""

    def __init__(self, parts: Parts, kept: KeptRounds) -> None:
        self._parts, self._kept = parts, kept
        self._layers, self._bytes_read = parts.config.num_layers, parts.bytes_read()
        self.taken = 0

    def turn(self, predictors: CudaExits, calls: Seq[ExitCall], candidates: Seq[Seq[int]]) -> Exits | None:
        """Confirmed exits of all calls, whose candidates these are, none of those that check no layer.

        None where they have to be taken step by step; then nothing has changed. Raises NumericalError,
        OutOfMemoryError where there is no room for states, and DeviceError; then nothing is booked.
        """
        waiting = None if self._kept.reason(ExitShape) is not None else self._wanted(calls)
        shape = None if waiting is None else self._shape(waiting, predictors)
        if waiting is None or shape is None:
            return None
        sequences = [one.sequence for one in waiting]
        with self._parts.current():
            launch = self._kept.round(
                sequences, shape, lambda means: ExitLaunch(self._parts.make_exits(sequences, shape), means)
            )
            if launch is None:
                return None
            plans = [_plan(*one) for one in zip(calls, waiting, candidates, strict=True)]
            begin = time.perf_counter()
            found = launch.run(waiting, plans)
            seconds = time.perf_counter() - begin
            check_tokens([left.token for left in found.left])
            moved = [
                _Waiting(sequence, [row for row in rows if row.done < left.layer])
                for (sequence, rows), left in zip(waiting, found.left, strict=True)
            ]
            ends = range(shape.rows, shape.rows * len(moved) + 1, shape.rows)
            rows = [range(end - len(one.rows), end) for one, end in zip(moved, ends, strict=True)]
            states = self._kept.copies(launch.states, rows)
        self.taken += 1
        for one, left, own in zip(moved, found.left, states, strict=True):
            _book(one, left.layer, shape.kept, own)
        return self._timed([Exit(*left) for left in found.left], found, seconds)

    def _wanted(self, calls: Seq[ExitCall]) -> list[_Waiting] | None:
        """None for what a launch cannot do."""
        found = [_waiting(call) for call in calls]
        there = [one for one in found if one is not None]
        return there if there and len(there) == len(calls) else None

    def _shape(self, waiting: Seq[_Waiting], predictors: CudaExits) -> ExitShape | None:
        """The smallest one that they fit in; None if there are too many rows for a pass."""
        longest, most = max(len(one.rows) for one in waiting), MAX_LINEAR_ROWS // len(waiting)
        rooms = sorted({rows for rows in (*_ROWS, min(most, EXIT_ROWS)) if longest <= rows <= most})
        kept = {layer for one in waiting for layer in one.sequence.layers_kept if layer < self._layers}
        return ExitShape(rooms[0], predictors, tuple(sorted(kept))) if rooms else None

    def _timed(self, exits: list[Exit], found: ExitRun, seconds: float) -> Exits:
        """A launch has one time: it is shared out by the bytes that its parts read."""
        layer, head = self._bytes_read
        layers, heads = found.layers * layer, found.heads * head
        return Exits(exits, 0.0, seconds * layers / (layers + heads), seconds * heads / (layers + heads))


def _waiting(call: ExitCall) -> _Waiting | None:
    """The rows that a call takes along, None unless they are text, and drawn by the device."""
    sequence = call.sequence
    if not isinstance(sequence, ReferenceSequence) or sequence.speculative or not is_plain(call.sampling):
        return None
    complete = sequence.frontier[-1]
    rows = [sequence.find(slot) for slot in range(complete, call.slot + 1)]
    is_newest = call.slot == sequence.length - 1
    if not is_newest or not 1 <= len(rows) <= EXIT_ROWS or rows[-1].done != 0:
        return None
    if any(row.done and row.hidden is None for row in rows):
        return None
    return _Waiting(sequence, rows)


def _plan(call: ExitCall, waiting: _Waiting, candidates: Seq[int]) -> ExitPlan:
    rows = waiting.rows
    return ExitPlan(
        tokens=[row.token for row in rows],
        begins=[row.done for row in rows],
        position=rows[-1].position,
        checked=[layer - 1 for layer in call.layers],
        candidates=candidates,
        threshold=call.threshold,
        temperature=call.sampling.temperature,
        seed=call.sampling.seed & WORD,
    )


def _book(moved: _Waiting, layer: int, kept: Seq[int], states: Tensor) -> None:
    """Rows have done ``layer`` layers; their states (1 + kept layers, rows, hidden)."""
    sequence, rows = moved
    for at, row in enumerate(rows):
        if row.done == 0:
            sequence.begin(row)
        before, row.done, row.hidden = row.done, layer, states[0, at]
        if row.keeping:
            after = [one for one in sequence.layers_kept if before < one <= layer]
            row.kept |= {one: states[0 if one == layer else 1 + kept.index(one), at] for one in after}
    sequence.name(rows[-1:])
