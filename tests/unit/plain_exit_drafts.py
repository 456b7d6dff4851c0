"""When exit layers draft and are looked at, in plain Python: the reference of csrc/policy/exit_drafts.h."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from specee.policies.draft_choice import GAIN
from specee.policies.objective import LAYERS, POSITIONS, Objective
from tests.unit.plain_exit_choice import NEAR, ExitChoice, ExitPlan
from tests.unit.plain_shadow_budget import ShadowBudget

_BETTER = 1.02
_SHORT_PAUSE, _PAUSE, _LONGEST_PAUSE = 4, 8, 128


class ExitDrafts:
    """Of one sequence, as ``specee._cpu.ExitDrafts``, but for the objectives, which are in Python."""

    def __init__(self, heads: Mapping[bool, Sequence[tuple[int, float]]]) -> None:
        self._exits = {adapted: ExitChoice(own) for adapted, own in heads.items()}
        self._budget = ShadowBudget()
        self._drafting = self.near = self._looked_adapted = False
        self.look_at = 0.0
        self._pause = _PAUSE
        self._looked = 0

    def draft(
        self, objective: Objective, now: float, beside: float
    ) -> tuple[bool, int, int, float, float] | None:
        best: tuple[bool, ExitPlan] | None = None
        for adapted, choice in self._exits.items():
            plan = choice.best(objective, now)
            if plan is not None and (best is None or plan.value > best[1].value):
                best = adapted, plan
        near = best is not None and best[1].value > NEAR * beside
        if near is not self.near:
            self.look_at, self._pause = now, _PAUSE
        self.near = near
        needed = 1.0 if self._drafting else GAIN
        self._drafting = best is not None and best[1].value > needed
        return (best[0], *best[1]) if best is not None and self._drafting else None

    def look(
        self,
        objective: Objective,
        seconds: Objective,
        length: int,
        remaining: int,
        fresh: bool,
        now: float,
        value: float,
    ) -> tuple[bool, tuple[int, ...]] | None:
        if now < self.look_at or length < self._looked + POSITIONS:
            return None
        left = self._budget.left(remaining * seconds.plain / seconds.sequences, near=self.near)
        able = [
            layers
            for layers in range(1, LAYERS + 1)
            if seconds.shadow_seconds(POSITIONS * (layers + fresh)) <= left
        ]
        if not able:
            self.look_at = now + _SHORT_PAUSE
            return None
        self.look_at = now + (_SHORT_PAUSE if self.near else self._pause)
        if not self.near:
            self._pause = min(2 * self._pause, _LONGEST_PAUSE)
        for adapted, choice in sorted(self._exits.items(), key=lambda pair: pair[0] is self._looked_adapted):
            if layers := choice.worth_a_look(objective, now, max(GAIN, _BETTER * value), max(able)):
                self._looked, self._looked_adapted = length, adapted
                return adapted, layers
        return None

    def learn(
        self,
        adapted: bool,
        layer: int,
        matches: Sequence[bool],
        confidences: Sequence[float],
        now: float,
        drafted: int | None,
    ) -> bool:
        surprise = self.see(adapted, layer, matches, confidences, now, drafted)
        if surprise:
            self.look_at = now
        return surprise

    def see(
        self,
        adapted: bool,
        layer: int,
        matches: Sequence[bool],
        confidences: Sequence[float],
        now: float,
        drafted: int | None,
    ) -> bool:
        return self._exits[adapted].learn(layer, matches, confidences, now, drafted)

    def saw(self, tokens: int) -> None:
        self._looked += tokens

    def note(self, seconds: float, shadow: float, drafting: bool) -> None:
        self._budget.note(seconds, shadow, drafting=drafting)
