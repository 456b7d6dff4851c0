"""Which exit layer one sequence drafts at, how far, and which layers are worth a look."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import NamedTuple

from specee.policies.evidence import Evidence
from specee.policies.objective import Choice, Objective

_ENOUGH = 1.0  # drafts' worth of evidence under which a layer is no longer believed
_SPREAD = 4  # layers of the first look


class ExitPlan(NamedTuple):
    """Draft at ``layer``, ``length`` tokens at most, until one's confidence is under ``stop_below``."""

    layer: int
    length: int
    stop_below: float
    value: float


class ExitChoice:
    """Of one sequence and one kind of head.

    ``heads``: pairs of a layer that can draft and its head's bytes over those of the model's own, ascending.
    Acceptance is taken to grow with depth, as it does: what is known of a layer bounds those below it.
    """

    def __init__(self, heads: Sequence[tuple[int, float]]) -> None:
        self._heads = dict(heads)
        self._layers = tuple(self._heads)
        self._evidence: dict[int, Evidence] = {}
        self._plans: dict[int, ExitPlan] = {}
        self._objective: Objective | None = None
        self._best: ExitPlan | None = None
        self._known = False  # whether nothing has changed since the best plan was looked for

    @property
    def layers(self) -> tuple[int, ...]:
        """All that can draft."""
        return self._layers

    def learn(self, layer: int, matches: Sequence[bool], confidences: Sequence[float], now: int) -> None:
        """Drafts of ``layer`` in round ``now``, real ones or shadows."""
        self._evidence.setdefault(layer, Evidence()).add(matches, confidences, now)
        self._plans.pop(layer, None)
        self._known = False

    def best(self, objective: Objective, now: int) -> ExitPlan | None:
        """The layer worth most among those of which enough is known; None without any."""
        if objective is not self._objective:
            self._objective, self._plans, self._known = objective, {}, False
        if not self._known:
            for layer in self._evidence.keys() - self._plans.keys():
                self._plans[layer] = self._plan(layer, objective)
            self._best = max(self._plans.values(), key=_value, default=None)
            self._known = True
        best = self._best
        if best is not None and best.value > 1 and self._evidence[best.layer].weight(now) < _ENOUGH:
            self._forget(now)
            return self.best(objective, now)
        return best

    def worth_a_look(self, objective: Objective, now: int, at_least: float) -> tuple[int, ...]:
        """Layers that may be worth more than ``at_least``, ascending, none if there are none.

        With nothing known they are spread evenly. Else they lie between the best layer known and its nearest
        known neighbours, three shallower ones and a deeper one: every look narrows the gap.
        """
        self._forget(now)
        best = self.best(objective, now)
        if best is None:
            able = [layer for layer in self._layers if self._hope(layer, objective, now) > at_least]
            return tuple(
                [able[len(able) * (2 * i + 1) // (2 * _SPREAD)] for i in range(min(_SPREAD, len(able)))]
            )
        at = {layer: index for index, layer in enumerate(self._layers)}
        center = at[best.layer]
        known = sorted(at[layer] for layer in self._evidence)
        below = max([index for index in known if index < center], default=-1)
        above = min([index for index in known if index > center], default=len(at))
        between = {below + (center - below) * part // 4 for part in (1, 2, 3)} | {(center + above) // 2}
        layers = [self._layers[index] for index in sorted(between - {below, center})]
        return tuple([layer for layer in layers if self._hope(layer, objective, now) > at_least])

    def _plan(self, layer: int, objective: Objective) -> ExitPlan:
        evidence, head = self._evidence[layer], self._heads[layer]
        fixed = objective.best(layer, head, evidence.rate)
        stopped: Choice = objective.best_stopped(layer, head, evidence.acceptance)
        if stopped.value > fixed.value:
            return ExitPlan(layer, stopped.length, evidence.threshold, stopped.value)
        return ExitPlan(layer, fixed.length, 0.0, fixed.value)

    def _hope(self, layer: int, objective: Objective, now: int) -> float:
        """What a layer can be worth at best, by what is known of deeper ones: the last is never wrong."""
        bound = 1.0
        for deeper, evidence in self._evidence.items():
            if deeper > layer:
                seen, rate = evidence.weight(now), evidence.rate
                bound = min(bound, rate + sqrt(rate * (1 - rate) / (seen + 1)) + 0.5 / (seen + 1))
        return objective.best(layer, self._heads[layer], bound).value

    def _forget(self, now: int) -> None:
        """What has decayed away."""
        for layer in [key for key, one in self._evidence.items() if one.weight(now) < _ENOUGH]:
            del self._evidence[layer]
            self._plans.pop(layer, None)
            self._known = False


def _value(plan: ExitPlan) -> float:
    return plan.value
