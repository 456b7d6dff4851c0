"""Which exit layer one sequence drafts at, how far, and which layers are worth a look."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import sqrt
from typing import NamedTuple

from specee.policies.evidence import Evidence
from specee.policies.objective import Choice, Objective

_ENOUGH = 1.0  # drafts' worth of evidence under which a layer is no longer believed
_SAMPLED = 5  # layers that one look takes in


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
        self._evidence: dict[int, Evidence] = {}
        self._plans: dict[int, ExitPlan] = {}
        self._objective: Objective | None = None
        self._best: ExitPlan | None = None
        self._known = False  # whether nothing has changed since the best plan was looked for

    @property
    def layers(self) -> tuple[int, ...]:
        """All that can draft."""
        return tuple(self._heads)

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

    def worth_a_look(
        self, objective: Objective, now: int, at_least: float, skip: Iterable[int] = ()
    ) -> tuple[int, ...]:
        """Layers that may be worth more than ``at_least``, the most promising ones, ascending.

        With nothing known they are spread evenly over those that could pay at all. ``skip`` are left out.
        """
        self._forget(now)
        hopes = sorted(
            (
                (value, layer)
                for layer, value in self._hopes(objective, now)
                if value > at_least and layer not in skip
            ),
            reverse=True,
        )
        layers = sorted(layer for _, layer in hopes)
        if not self._evidence and len(layers) > _SAMPLED:
            return tuple([layers[len(layers) * (2 * i + 1) // (2 * _SAMPLED)] for i in range(_SAMPLED)])
        return tuple(sorted(layer for _, layer in hopes[:_SAMPLED]))

    def _plan(self, layer: int, objective: Objective) -> ExitPlan:
        evidence, head = self._evidence[layer], self._heads[layer]
        fixed = objective.best(layer, head, evidence.rate)
        stopped: Choice = objective.best_stopped(layer, head, evidence.acceptance)
        if stopped.value > fixed.value:
            return ExitPlan(layer, stopped.length, evidence.threshold, stopped.value)
        return ExitPlan(layer, fixed.length, 0.0, fixed.value)

    def _hopes(self, objective: Objective, now: int) -> Iterable[tuple[int, float]]:
        """What every layer is worth at best: by what is known of it, else of the next deeper one known."""
        hope = 1.0
        for layer in sorted(self._heads, reverse=True):
            evidence = self._evidence.get(layer)
            if evidence is not None:
                seen, rate = evidence.weight(now), evidence.rate
                hope = min(hope, rate + sqrt(rate * (1 - rate) / (seen + 1)) + 0.5 / (seen + 1))
            yield layer, objective.best(layer, self._heads[layer], hope).value

    def _forget(self, now: int) -> None:
        """What has decayed away."""
        for layer in [key for key, one in self._evidence.items() if one.weight(now) < _ENOUGH]:
            del self._evidence[layer]
            self._plans.pop(layer, None)
            self._known = False


def _value(plan: ExitPlan) -> float:
    return plan.value
