"""``specee._cpu.ExitChoice`` with objectives and plans as the plain one has them."""

from __future__ import annotations

from collections.abc import Sequence

from specee import _cpu
from specee.policies.draft_choice import GAIN
from specee.policies.objective import POSITIONS, Objective
from tests.unit.plain_exit_choice import ExitPlan


class NativeExitChoice:
    """Of one sequence and one kind of head."""

    def __init__(self, heads: Sequence[tuple[int, float]]) -> None:
        self._native = _cpu.ExitChoice(heads)
        self.learn = self._native.learn
        self.known_of = self._native.known_of

    def best(self, objective: Objective, now: float) -> ExitPlan | None:
        found = self._native.best(objective.native, now)
        return None if found is None else ExitPlan(*found)

    def worth_a_look(self, objective: Objective, now: float, at_least: float, most: int) -> tuple[int, ...]:
        return self._native.worth_a_look(objective.native, now, at_least, most)


def exit_drafts(*layers: int) -> _cpu.ExitDrafts:
    """Of layers with the model's own head."""
    return _cpu.ExitDrafts([(False, [(layer, 1.0) for layer in layers])] if layers else [], POSITIONS, GAIN)
