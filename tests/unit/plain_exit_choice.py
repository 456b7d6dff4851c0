"""What csrc/policy decides about exit layers, in plain Python: the reference that it is compared with."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from math import sqrt
from typing import NamedTuple

from specee.policies.evidence import Evidence
from specee.policies.objective import Objective
from tests.unit.judged import best_stopped

_ENOUGH = 1.0  # drafts' worth of evidence under which a layer is no longer believed
_FRESH = 2.5  # and under which it is worth another look
_MOST = 40.0  # and as many are enough: a long run of good drafts must not outweigh what comes after it
NEAR = 0.97
"""A layer worth more comes near to paying, or pays."""
# What a surprise leaves of what the layer has shown, and of what the others have.
_SURPRISED, _SURPRISED_OTHERS = 0.5, 0.25
_MOSTLY = 0.95  # drafts that are sure, when there is hardly one to stop after


class ExitPlan(NamedTuple):
    """Draft at ``layer``, ``length`` tokens at most, until one's confidence is under ``stop_below``."""

    layer: int
    length: int
    stop_below: float
    value: float


_SURPRISE = 10  # times the misses that were to be expected
_LONG = 4  # drafts of a round: where as many come for nothing, one round is enough to doubt


class ExitEvidence(Evidence):
    """Which also knows when it was wrong."""

    __slots__ = ("_failed",)

    def __init__(self) -> None:
        super().__init__()
        self._failed = False  # whether none of the latest drafts was right

    def add(self, matches: Sequence[bool], confidences: Sequence[float], now: float) -> None:
        """Drafts of round ``now``."""
        super().add(matches, confidences, now)
        if matches:
            self._failed = True not in matches

    def older_than(self, now: float) -> bool:
        """Whether nothing of round ``now`` is in it."""
        return self._round < now

    def surprised_by(self, matches: Sequence[bool], drafted: int) -> bool:
        """Whether there are ten times the misses that are to be expected: the text may have changed.

        One miss may be chance: it takes a second one, now or the time before, with nothing right between, or
        that none of many was right. ``drafted``: how many there were, ``matches`` among them.
        """
        misses = matches.count(False)
        if misses < 2 and (True in matches or not (self._failed or drafted >= _LONG)):
            return False
        return misses > _SURPRISE * len(matches) * (1 - self.rate)


class ExitChoice:
    """Of one sequence and one kind of head.

    ``heads``: pairs of a layer that can draft and its head's bytes over those of the model's own, ascending.
    Acceptance is taken to grow with depth, as it mostly does: what is known of a layer bounds those below it.
    """

    def __init__(self, heads: Sequence[tuple[int, float]]) -> None:
        self._heads = dict(heads)
        self._layers = tuple(self._heads)
        self._evidence: dict[int, ExitEvidence] = {}
        self._plans: dict[int, ExitPlan] = {}
        self._objective: Objective | None = None
        self._best: ExitPlan | None = None
        self._tried = 0  # the deepest layer of the latest look, if none was found that comes near to paying
        self._known = False  # whether nothing has changed since the best plan was looked for

    def learn(
        self,
        layer: int,
        matches: Sequence[bool],
        confidences: Sequence[float],
        now: float,
        drafted: int | None = None,
    ) -> bool:
        """Drafts of ``layer`` in round ``now``, real ones or shadows; returns whether they are a surprise.

        ``drafted``: how many real ones there were, those after the first wrong one included.
        """
        evidence = self._evidence.setdefault(layer, ExitEvidence())
        evidence.cap(_MOST)
        surprise = evidence.surprised_by(matches, len(matches) if drafted is None else drafted)
        if surprise:  # then what was known of all layers is of another text
            for one in self._evidence.values():
                if one.older_than(now):
                    one.fade(_SURPRISED if one is evidence else _SURPRISED_OTHERS)
        evidence.add(matches, confidences, now)
        self._plans.pop(layer, None)
        self._known = False
        return surprise

    def best(self, objective: Objective, now: float) -> ExitPlan | None:
        """The layer worth most among those of which enough is known; None without any."""
        if objective is not self._objective:
            self._objective, self._plans, self._known = objective, {}, False
        if not self._known:
            for layer in self._evidence.keys() - self._plans.keys():
                self._plans[layer] = self._plan(layer, objective)
            best = max(self._plans.values(), key=_rank, default=None)
            self._best = None if best is None else self._stopped(best, objective)
            self._known = True
        best = self._best
        if best is not None and best.value > 1 and self._evidence[best.layer].weight(now) < _ENOUGH:
            self._forget(now)
            return self.best(objective, now)
        return best

    def worth_a_look(self, objective: Objective, now: float, at_least: float, most: int) -> tuple[int, ...]:
        """At most so many layers that may be worth more than ``at_least``, ascending.

        Some lie between the best layer known and the next shallower one that is known to be worth less, so
        that every look narrows the gap; the others are spread over all deeper ones. Where no layer comes near
        to paying all are. Where one does, layer 1 has its turn whatever is known of the next ones: where
        embeddings are tied it says the newest token again, which is right where a text repeats one.
        """
        self._forget(now)
        best = self.best(objective, now)
        known = best.layer if best is not None and best.value > NEAR else 0
        able = self._hopes(objective, now, at_least, known)
        if best is None:
            return self._deeper_each_time(able, most)
        deeper = [layer for layer in able if layer > best.layer]
        if not known:
            return self._deeper_each_time(deeper or able, most)
        self._tried = 0
        shallower = [layer for layer in able if layer < best.layer]
        first = self._forgotten_first(known, shallower, objective, now, at_least) if most > 1 else ()
        most -= len(first)
        return first + _spread(shallower, -(-most // 2)) + _spread(deeper, most // 2)

    def _deeper_each_time(self, able: Sequence[int], most: int) -> tuple[int, ...]:
        """Where the latest look found nothing, at what lies beyond; then at all of them anew."""
        chosen = _spread([layer for layer in able if layer > self._tried] or able, most)
        self._tried = max(chosen, default=0)
        return chosen

    def _forgotten_first(
        self, below: int, others: Sequence[int], objective: Objective, now: float, at_least: float
    ) -> tuple[int, ...]:
        """Layer 1 if it can draft, unless it is among ``others``, not ``below``, known, or could not pay."""
        first = self._layers[0]
        if first > 1 or first >= below or first in others:
            return ()
        known = self.known_of(first, now) >= _FRESH
        return () if known or objective.best(first, self._heads[first], 1.0).value <= at_least else (first,)

    def known_of(self, layer: int, now: float) -> float:
        """How many drafts' worth is known of ``layer`` by round ``now``."""
        evidence = self._evidence.get(layer)
        return 0.0 if evidence is None else evidence.weight(now)

    def _hopes(self, objective: Objective, now: float, at_least: float, known: int) -> list[int]:
        """Layers to be looked at that may be worth that much, ascending.

        What is known of a layer of late bounds those below it, and the last layer is never wrong. Under one
        bound shallower layers are worth more: they cost less. Under a layer that is ``known`` to be good they
        end at the first that is known not to be.
        """
        able: list[int] = []
        unseen: list[int] = []  # under one bound, descending
        bound = 1.0
        for layer in reversed(self._layers):
            evidence = self._evidence.get(layer)
            seen = self.known_of(layer, now)
            if evidence is None or seen < _FRESH:
                unseen.append(layer)
                continue
            if unseen:
                able += self._hopeful(unseen, objective, bound, at_least)
                unseen.clear()
            rate = evidence.rate
            bound = min(bound, rate + sqrt(rate * (1 - rate) / (seen + 1)) + 0.5 / (seen + 1))
            if layer < known and objective.best(layer, self._heads[layer], bound).value <= at_least:
                break
        if unseen:
            able += self._hopeful(unseen, objective, bound, at_least)
        able.reverse()
        return able

    def _hopeful(
        self, layers: Sequence[int], objective: Objective, rate: float, at_least: float
    ) -> Sequence[int]:
        """Those of ``layers``, which descend, that are worth more than ``at_least``: from the first such on.

        It is searched for by halves, unless there is none.
        """

        def hopeful(layer: int) -> bool:
            return objective.best(layer, self._heads[layer], rate).value > at_least

        if not hopeful(layers[-1]):
            return ()
        return layers[bisect_left(layers, True, hi=len(layers) - 1, key=hopeful) :]

    def _plan(self, layer: int, objective: Objective) -> ExitPlan:
        choice = objective.best(layer, self._heads[layer], self._evidence[layer].rate)
        return ExitPlan(layer, choice.length, 0.0, choice.value)

    def _stopped(self, plan: ExitPlan, objective: Objective) -> ExitPlan:
        """The same layer with DEL's confidence threshold, where that is worth more."""
        evidence = self._evidence[plan.layer]
        acceptance = evidence.acceptance
        if acceptance.sure > _MOSTLY:
            return plan
        stopped = best_stopped(objective, plan.layer, self._heads[plan.layer], acceptance)
        if stopped.value <= plan.value:
            return plan
        return ExitPlan(plan.layer, stopped.length, evidence.threshold, stopped.value)

    def _forget(self, now: float) -> None:
        """What has decayed away."""
        for layer in [key for key, one in self._evidence.items() if one.weight(now) < _ENOUGH]:
            del self._evidence[layer]
            self._plans.pop(layer, None)
            self._known = False


def _spread(layers: Sequence[int], most: int) -> tuple[int, ...]:
    """So many of them, evenly."""
    count = min(most, len(layers))
    if count == len(layers):
        return tuple(layers)
    return tuple([layers[len(layers) * (2 * i + 1) // (2 * count)] for i in range(count)])


def _rank(plan: ExitPlan) -> tuple[float, int]:
    """Of what is worth as much the shallowest."""
    return plan.value, -plan.layer
