"""Rounds with early exits for :mod:`bench.cuda_rounds`: one launch each, and the same step by step.

Where rows leave is scripted: predictors say it by their bias alone, and what the head says there is among the
candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from collections.abc import Sequence as Seq
from typing import Any

import numpy as np

from specee.errors import SpeceeError

CANDIDATES, WIDTH = 4, 512


def scripted(layers: Seq[int], leaves: int) -> Any:
    """Predictors of ``layers`` that are sure after ``leaves`` layers alone."""
    from specee.models.exit_parts import FEATURES, ExitParts

    count = len(layers)
    zeros = np.zeros((count, WIDTH), np.float32)
    sure = np.array([4.0 if layer == leaves else -4.0 for layer in layers], np.float32)
    first = np.zeros((count, WIDTH, FEATURES * CANDIDATES), np.float32)
    return ExitParts(tuple(layers), first, zeros, zeros, sure, np.zeros(count, np.float32))


def exit_cases(backend: Any, own: Seq[Any]) -> Iterator[tuple[str, Callable[[], object]]]:
    """Names, and what takes a newest row of ``own`` sequences as far as predictors want, and forgets it.

    What is named a launch raises SpeceeError where it is none.
    """
    from specee.backends.reference_exits import ExitRow, leave

    last = backend.config.num_layers
    checked = sorted({max(1, last * quarter // 4) for quarter in (1, 2, 3)})
    for leaves in (*checked, last):
        exits = backend.exit_predictors(scripted(checked, leaves))
        candidates = said_after(backend, own, leaves)

        def turn(exits: Any = exits, candidates: Any = candidates, leaves: int = leaves) -> bool:
            calls = calls_of(own, checked)
            try:
                found = backend._exits.turn(exits, calls, candidates)
            finally:
                forget(own)
            left = {one.layer for one in found.exits} if found else {leaves}
            if left != {leaves}:
                raise SpeceeError(f"rows left after {sorted(left)} layers, and were to leave after {leaves}")
            return found is not None

        def launch(turn: Callable[[], bool] = turn) -> None:
            if not turn():
                raise SpeceeError(no_launch(backend))

        def step(exits: Any = exits, candidates: Any = candidates) -> None:
            rows = [ExitRow(ids) for ids in candidates]
            calls = calls_of(own, checked)
            try:
                leave(backend, calls, rows, exits, confirm=True)
            finally:
                forget(own)

        turn()  # a round is recorded when it comes again
        yield f"exits after {leaves} layers, launch, {len(own)} sequences", launch
        yield f"exits after {leaves} layers, steps, {len(own)} sequences", step


def no_launch(backend: Any) -> str:
    """Why what is named one is none."""
    reason = backend.graphs_missing or "the device has no memory for one"
    return f"this is no launch here ({reason}): use a driver with conditional nodes; free memory"


def calls_of(own: Seq[Any], checked: Seq[int]) -> list[Any]:
    """One of each sequence, for a row that is new."""
    from specee.backends.protocol import ExitCall
    from specee.types import Sampling

    nothing: Any = None  # candidates are there: no block is asked for some
    slots = [one.append([1])[0] for one in own]
    return [
        ExitCall(one, nothing, slot, checked, 0.5, Sampling()) for one, slot in zip(own, slots, strict=True)
    ]


def forget(own: Seq[Any]) -> None:
    """Without the newest rows."""
    for one in own:
        one.rollback(1)


def said_after(backend: Any, own: Seq[Any], layers: int) -> list[list[int]]:
    """Candidates of each sequence, of which the first is what the head says after so many layers."""
    work = [(one, one.append([1])) for one in own]
    backend.advance(work, layers)
    tokens = backend.argmax(work).tolist()
    forget(own)
    return [[(token + more) % backend.config.vocab_size for more in range(CANDIDATES)] for token in tokens]
