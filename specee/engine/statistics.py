"""What a generation did, round by round: accepted drafts, exit layers, lengths, and where the time went."""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from dataclasses import dataclass, field

from specee.policies.plans import DraftSource, ExitLayer, Outcome, Round, Times


@dataclass(frozen=True)
class Counts:
    """Tokens ``drafted``, and those of them ``accepted``."""

    drafted: int = 0
    accepted: int = 0

    @property
    def rate(self) -> float:
        """Accepted over drafted tokens, 0 if none were drafted."""
        return self.accepted / self.drafted if self.drafted else 0.0


@dataclass
class Statistics:
    """Of one generation, all its sequences together: outcomes as they were, summed up when asked.

    A step is a turn here, one execution of a plan; the first one computes the prompts. ``step_seconds[i]`` is
    step i's time, from observing to committing and seeing shadow tokens; of turns that were taken together,
    its backend calls and an equal share of the rest.
    """

    outcomes: list[Outcome] = field(default_factory=list)
    step_seconds: list[float] = field(default_factory=list)

    def add(self, outcome: Outcome, seconds: float) -> None:
        """A step, and how long it took."""
        self.outcomes.append(outcome)
        self.step_seconds.append(seconds)

    def amend(self, outcome: Outcome, seconds: float) -> None:
        """The latest step, now that its shadow tokens are known too, which took ``seconds`` more."""
        self.outcomes[-1] = outcome
        self.step_seconds[-1] += seconds

    @property
    def steps(self) -> list[tuple[Round, ...]]:
        """For each step the rounds of the sequences that took part."""
        return [outcome.rounds for outcome in self.outcomes]

    @property
    def prompt_seconds(self) -> float:
        """Time of the first step."""
        return sum(self.step_seconds[:1])

    @property
    def seconds(self) -> float:
        """Time of all later steps."""
        return sum(self.step_seconds[1:])

    @property
    def times(self) -> Times:
        """Backend calls of all steps but the first."""
        later = [outcome.times for outcome in self.outcomes[1:]]
        return Times(*map(sum, zip(*later, strict=True))) if later else Times()

    def rounds(self, sequence: int | None = None) -> list[Round]:
        """All rounds in order, or those of one sequence."""
        return [
            entry for step in self.steps for entry in step if sequence is None or entry.sequence == sequence
        ]

    @property
    def acceptance(self) -> Counts:
        """Over all sources."""
        return _sum(self.rounds())

    @property
    def accepted_histogram(self) -> dict[int, int]:
        """How many of the rounds that drafted had 0, 1, 2, ... drafts accepted."""
        counts = Counter(entry.accepted for entry in self.rounds() if entry.drafted)
        return {accepted: counts[accepted] for accepted in range(max(counts, default=-1) + 1)}

    @property
    def by_source(self) -> dict[DraftSource, Counts]:
        """Counts of each source that drafted, exit layers in rising order first."""
        found: dict[DraftSource, list[Round]] = defaultdict(list)
        for entry in self.rounds():
            if entry.source is not None and entry.drafted:
                found[entry.source].append(entry)
        return {source: _sum(found[source]) for source in sorted(found, key=_by_depth)}

    @property
    def exit_layers(self) -> dict[int, int]:
        """How many rows left at each layer by a predictor, the last layer for those that none let go."""
        counts = Counter(layer for entry in self.rounds() for layer in entry.exits)
        return dict(sorted(counts.items()))

    @property
    def later_tokens(self) -> int:
        """Tokens emitted after the first step: those that :attr:`seconds` were spent on."""
        return sum(len(entry.tokens) for step in self.steps[1:] for entry in step)

    @property
    def tokens_per_round(self) -> float:
        """Tokens emitted a round, the first step aside; plain decoding has 1."""
        later = [entry for step in self.steps[1:] for entry in step]
        return sum(len(entry.tokens) for entry in later) / len(later) if later else 0.0

    @property
    def shares(self) -> dict[str, float]:
        """Of the time after the first step: draft, draft_head, verify, head, shadow, python; together 1."""
        if not self.seconds:
            return {}
        spent = self.times
        parts = {
            "draft": spent.draft,
            "draft_head": spent.draft_head,
            "verify": spent.verify,
            "head": spent.head,
            "shadow": spent.shadow,
            "python": max(0.0, self.seconds - spent.total),
        }
        return {name: seconds / self.seconds for name, seconds in parts.items()}


def _sum(rounds: list[Round]) -> Counts:
    return Counts(sum(r.drafted for r in rounds), sum(r.accepted for r in rounds))


def _by_depth(source: DraftSource) -> tuple[int, str]:
    """Exit layers first, shallow ones before deep ones."""
    return (source.layer if isinstance(source, ExitLayer) else sys.maxsize, repr(source))
