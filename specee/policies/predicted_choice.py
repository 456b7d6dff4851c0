"""Whether one sequence drafts with exit predictors, and how far: hoped at first, then as it was seen.

A draft takes a row to where tokens usually leave, and the block beside. Before anything was seen predictors
are hoped to be right nearly always; where even that would not pay, as on most models, nothing is ever tried.
"""

from __future__ import annotations

from collections.abc import Sequence

from specee.policies.objective import LONGEST, Choice, Objective
from specee.policies.plans import ExitView, Outcome, PredictedExit, Round

_RIGHT = 0.95  # of the tokens that leave early, before any was seen to
_HOPE = 1.0  # drafts' worth of it
_FADE = 0.95  # of what drafts have shown, a round later
_ENOUGH = 0.2  # drafts' worth under which what they have shown is forgotten
_RATE = 0.2  # of the newest round's layers and seconds that is believed


class PredictedCost:
    """Of all sequences: what drafts take. ``exits`` of the model; ``share``: :attr:`.ModelView.drafter`."""

    def __init__(self, exits: ExitView, share: float) -> None:
        self.leaving = min(1.0, sum(exits.shares))
        """Tokens that leave early, of all."""
        pairs = zip(exits.layers, exits.shares, strict=True)
        self._layer = sum(layer * part for layer, part in pairs) / (self.leaving or 1.0)
        self._share = share
        self._known: tuple[Objective, int, list[float]] | None = None
        self._more = 0.0  # seconds a draft, over what its layers and bytes make expect
        self.lessons = 0
        """Rounds that this was learnt from: as long as there are no more, it says the same."""

    def seconds(self, objective: Objective) -> list[float]:
        """Of rounds of 0, 1, ... LONGEST drafts."""
        layer = self._usual(objective)
        if self._known is None or self._known[:2] != (objective, layer):
            counts = range(LONGEST + 1)
            self._known = objective, layer, [objective.seconds(layer, self._share, each) for each in counts]
        return [known + drafts * self._more for drafts, known in enumerate(self._known[2])]

    def block(self, objective: Objective) -> float:
        """Seconds of candidates, which a row needs also where no predictor lets it go."""
        layer = self._usual(objective)
        return objective.seconds(layer, self._share, 1) - objective.seconds(layer, 0.0, 1)

    def _usual(self, objective: Objective) -> int:
        return max(1, min(round(self._layer), objective.layers - 1))

    def learn(self, outcome: Outcome, objective: Objective) -> None:
        """From a round in which nothing else drafted."""
        drafted = [entry for entry in outcome.rounds if entry.drafted]
        if not drafted or not all(isinstance(entry.source, PredictedExit) for entry in drafted):
            return
        self.lessons += 1
        layers = [layer for entry in drafted for layer in entry.exits]
        self._layer += _RATE * (sum(layers) / len(layers) - self._layer)
        turns = max(entry.drafted for entry in drafted)
        times = outcome.times
        expected = self.seconds(objective)[turns] - turns * self._more
        taken = times.draft + times.draft_head + times.verify + times.head
        self._more += _RATE * (max(0.0, taken - expected) / turns - self._more)


class PredictedChoice:
    """Of one sequence."""

    def __init__(self, cost: PredictedCost) -> None:
        self._cost = cost
        self._right = self._wrong = self._stopped = 0.0  # drafts; and those that no predictor let go
        self._now = 0.0
        self._planned = Choice(0, 0.0)
        self._known: tuple[Objective, int] | None = None  # what the latest plan follows from

    def best(self, objective: Objective, now: float) -> Choice:
        """The length worth most, and its value."""
        if (self._right + self._wrong + self._stopped) * _FADE ** (now - self._now) < _ENOUGH:
            if self._right + self._wrong + self._stopped:
                self._known = None
            self._right = self._wrong = self._stopped = 0.0
        cost = self._cost
        if self._known != (objective, cost.lessons):  # else nothing has changed, as in most rounds
            self._known = objective, cost.lessons
            made, kept = self._rates()
            taken = _taken(cost.seconds(objective), made, cost.block(objective))
            self._planned = objective.most(_tokens(made * kept), taken)
        return self._planned

    def learn(self, entry: Round, now: float) -> None:
        """What came of the latest plan; where it drafted nothing no predictor was sure."""
        factor = _FADE ** (now - self._now)
        self._now = now
        self._right = factor * self._right + entry.accepted
        self._wrong = factor * self._wrong + (entry.accepted < entry.drafted)
        self._stopped = factor * self._stopped + (entry.drafted < self._planned.length)
        self._known = None

    def _rates(self) -> tuple[float, float]:
        """How often a row leaves, and how often that is right."""
        left, leaving = self._right + self._wrong, self._cost.leaving
        made = (left + _HOPE * leaving) / (left + self._stopped + _HOPE)
        return made, (self._right + _HOPE * _RIGHT) / (left + _HOPE)


def _tokens(rate: float) -> list[float]:
    """Of rounds of 1, 2, ... LONGEST drafts, each made and right as often as that."""
    total, power, found = 1.0, 1.0, []
    for _ in range(LONGEST):
        power *= rate
        total += power
        found.append(total)
    return found


def _taken(seconds: Sequence[float], made: float, block: float) -> list[float]:
    """Seconds of rounds of 1, 2, ... drafts at most, each made so often, and tried for ``block`` seconds."""
    total, power, taken = seconds[0], 1.0, []
    for drafts in range(1, LONGEST + 1):
        total += power * block
        power *= made
        total += power * (seconds[drafts] - seconds[drafts - 1] - block)
        taken.append(total)
    return taken
