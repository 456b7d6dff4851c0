"""What came of a replay, summed up when asked."""

from __future__ import annotations

import statistics
from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

from specee.policies import DraftSource, Outcome, Plan, Round


class ReplayedRound(NamedTuple):
    """One step. ``length``: tokens of the text before it, ``remaining``: those still to come.

    ``seconds``: of the whole step by the latency table; of the first one only what plain decoding does not
    spend. ``planning`` and ``learning``: real seconds that the policy took. ``anew``: whether the plan is not
    the one of the round before.
    """

    length: int
    remaining: int
    plan: Plan
    outcome: Outcome
    seconds: float
    planning: float
    learning: float
    anew: bool

    @property
    def round(self) -> Round:
        """What the sequence got."""
        return self.outcome.rounds[0]


@dataclass(frozen=True)
class Replay:
    """A policy on the texts of a trace, ``texts[i]`` the rounds of text i. ``plain``: seconds without it.

    Prompts are the same work for every policy, and are left out of all seconds; what was looked at or
    drafted with them is not.
    """

    policy: str
    texts: tuple[tuple[ReplayedRound, ...], ...]
    plain: float

    @property
    def rounds(self) -> list[ReplayedRound]:
        """Of all texts."""
        return [entry for text in self.texts for entry in text]

    @property
    def tokens(self) -> int:
        """Emitted."""
        return sum(len(entry.round.tokens) for entry in self.rounds)

    @property
    def seconds(self) -> float:
        """By the latency table, the policy's own time aside."""
        return sum(entry.seconds for entry in self.rounds)

    @property
    def ratio(self) -> float:
        """How much faster than plain decoding; 1 where there is nothing to decode after the first token."""
        return self.plain / self.seconds if self.seconds else 1.0

    @property
    def shadow_share(self) -> float:
        """Of the seconds, those for shadow tokens."""
        return (
            sum(entry.outcome.times.shadow for entry in self.rounds) / self.seconds if self.seconds else 0.0
        )

    @property
    def drafted(self) -> int:
        """Tokens."""
        return sum(entry.round.drafted for entry in self.rounds)

    @property
    def accepted(self) -> int:
        """Of those drafted."""
        return sum(entry.round.accepted for entry in self.rounds)

    @property
    def acceptance(self) -> float:
        """Accepted over drafted tokens, 0 if none were drafted."""
        return self.accepted / self.drafted if self.drafted else 0.0

    @property
    def drafting_share(self) -> float:
        """Of the rounds, those that drafted something."""
        rounds = self.rounds
        return sum(entry.round.drafted > 0 for entry in rounds) / len(rounds)

    @property
    def accepted_each(self) -> float:
        """Tokens accepted in a round that drafted something, on average; 0 if none did."""
        drafting = sum(entry.round.drafted > 0 for entry in self.rounds)
        return self.accepted / drafting if drafting else 0.0

    @property
    def sources(self) -> Counter[DraftSource | None]:
        """In how many rounds each drafted; None where nothing did."""
        return Counter(entry.round.source for entry in self.rounds)

    @property
    def deciding(self) -> float:
        """Seconds that the policy took to plan and to learn, in a round on average."""
        return statistics.mean(entry.planning + entry.learning for entry in self.rounds)

    @property
    def replanning(self) -> tuple[float, float]:
        """Seconds of a plan that was made anew: median, and what nine in ten are under."""
        seconds = sorted(entry.planning for entry in self.rounds if entry.anew)
        return statistics.median(seconds), seconds[len(seconds) * 9 // 10]
