"""What a run took and what it drafted, so that runs can be added up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import reduce
from operator import add
from typing import Any, NamedTuple

from specee.engine.statistics import Statistics
from specee.policies import ExitLayer, NgramLookup, Outcome

ASIDE = 16
"""Steps without a draft after which a policy counts as having stepped aside."""
NONE = "none"


class Spent(NamedTuple):
    """Runs added up. ``tokens`` came out in ``decode`` seconds, after first steps that took ``prompt``.

    ``shadow`` seconds are of all steps, ``aside_shadow`` of the ``aside`` seconds: steps that followed
    ``ASIDE`` steps without a draft. ``sources`` and ``lengths`` count the rounds after the first step: by
    what drafted, and by how many tokens were drafted.
    """

    tokens: int
    decode: float
    prompt: float
    shadow: float
    aside: float
    aside_shadow: float
    drafted: int
    accepted: int
    sources: Counter[str]
    lengths: Counter[int]

    @property
    def request(self) -> float:
        """Seconds with those of the prompt."""
        return self.decode + self.prompt

    @property
    def acceptance(self) -> float:
        """Share of the drafted tokens, 0 if none were drafted."""
        return self.accepted / self.drafted if self.drafted else 0.0

    @property
    def speed(self) -> float:
        """Tokens a second after the first step."""
        return self.tokens / self.decode if self.decode else 0.0

    @property
    def shadow_shares(self) -> dict[str, float]:
        """Shadow tokens' share of the time: of all, of that while stepped aside, and of the rest."""
        busy, busy_shadow = self.request - self.aside, self.shadow - self.aside_shadow
        return {
            "all": _share(self.shadow, self.request),
            "aside": _share(self.aside_shadow, self.aside),
            "busy": _share(busy_shadow, busy),
            "time_aside": _share(self.aside, self.request),
        }


def of(statistics: Statistics) -> Spent:
    """Of one run."""
    later = [entry for step in statistics.steps[1:] for entry in step]
    counts = statistics.acceptance
    aside = aside_steps(statistics.outcomes)
    return Spent(
        tokens=statistics.later_tokens,
        decode=statistics.seconds,
        prompt=statistics.prompt_seconds,
        shadow=sum(outcome.times.shadow for outcome in statistics.outcomes),
        aside=sum(statistics.step_seconds[step] for step in aside),
        aside_shadow=sum(statistics.outcomes[step].times.shadow for step in aside),
        drafted=counts.drafted,
        accepted=counts.accepted,
        sources=Counter(_label(entry.source) if entry.drafted else NONE for entry in later),
        lengths=Counter(entry.drafted for entry in later),
    )


def together(runs: Iterable[Spent]) -> Spent:
    """Their sum; there must be one at least."""
    return Spent(*(reduce(add, column) for column in zip(*runs, strict=True)))


def aside_steps(outcomes: Sequence[Outcome]) -> list[int]:
    """Steps that do not draft, nor did any of the ``ASIDE`` steps before them, the first step aside."""
    found, last = [], 0
    for step, outcome in enumerate(outcomes):
        if any(entry.drafted for entry in outcome.rounds):
            last = step
        elif step - last > ASIDE:
            found.append(step)
    return found


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _label(source: Any) -> str:
    if isinstance(source, ExitLayer):
        return f"{source.layer}{' adapted' if source.adapted else ''}"
    return "lookup" if isinstance(source, NgramLookup) else type(source).__name__
