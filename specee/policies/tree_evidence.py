"""What trees of drafts have shown on one text: how likely their nodes were, and how often that came true."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from specee.policies.evidence import DECAY
from specee.policies.objective import LONGEST

# Chances of the likeliest node, the next one, ... of a tree that nobody has seen, and what that is worth in
# rounds beside those that were seen.
_CHANCES = tuple([0.6 * 0.8**rank for rank in range(LONGEST)])
_PRIOR = 0.5
_DOUBTED = tuple([_PRIOR * chance for chance in _CHANCES])
_DEPTH = 3.0
_MOST = 20.0  # rounds are enough: what comes after a long run of good ones must count for something
_TRUST_DECAY = 0.9  # faster than what nodes look like: a text that surprises the block does so at once
_DOUBT = 2.0  # accepted drafts' worth of trust in chances as they are


class TreeEvidence:
    """Of one sequence; a round counts for less with every round after it."""

    def __init__(self) -> None:
        self._sums = [0.0] * LONGEST  # of chances, by rank
        self._seen = [0.0] * LONGEST  # rounds in which that rank was there, or might have been
        self._expected, self._accepted = [0.0, 0.0], [0.0, 0.0]  # of trees left whole, of pruned ones
        self._depths = self._rounds = 0.0
        self._now = 0.0

    def add(
        self,
        chances: Sequence[float],
        accepted: int,
        depth: int,
        most: int,
        stop_below: float,
        now: float,
        *,
        pruned: bool = False,
    ) -> None:
        """A tree of round ``now``, of at most ``most`` nodes, none of them less likely than ``stop_below``.

        ``chances``: of its nodes, likeliest first. ``accepted``: drafts that were right. ``depth``: most
        drafts in a row. ``pruned``: whether predictors could rule nodes out, right ones now and then.
        """
        self._fade(now)
        sums, seen = self._sums, self._seen
        made, most = min(len(chances), most, LONGEST), min(most, LONGEST)
        for rank in range(most):
            # A node that was left out is known to be unlikely, and not how unlikely.
            sums[rank] += chances[rank] if rank < made else stop_below / 2
            seen[rank] += 1
        self._expected[pruned] += sum(chances)
        self._accepted[pruned] += accepted
        self._depths += depth
        self._rounds += 1

    def accepted(self, *, pruned: bool = False) -> list[float]:
        """Drafts that are expected to be accepted of the 1, 2, ... LONGEST likeliest nodes."""
        trust = self.trusted(pruned=pruned)
        means = [
            (chances + prior) / (seen + _PRIOR)
            for prior, seen, chances in zip(_DOUBTED, self._seen, self._sums, strict=True)
        ]
        return [trust * total for total in accumulate(accumulate(means, min))]

    @property
    def trust(self) -> float:
        """Accepted drafts over those that chances made expect."""
        return (self._accepted[0] + _DOUBT) / (self._expected[0] + _DOUBT)

    def trusted(self, *, pruned: bool) -> float:
        """The same; of trees that are pruned what those left whole have shown, until they show otherwise."""
        if not pruned:
            return self.trust
        return (self._accepted[1] + _DOUBT * self.trust) / (self._expected[1] + _DOUBT)

    @property
    def depth(self) -> float:
        """Drafts in a row of a usual tree."""
        return (self._depths + _PRIOR * _DEPTH) / (self._rounds + _PRIOR)

    def weight(self, now: float) -> float:
        """How many rounds' worth it is by round ``now``."""
        return self._rounds * float(DECAY ** (now - self._now))

    def _fade(self, now: float) -> None:
        faster = float(_TRUST_DECAY ** (now - self._now))
        for counts in (self._expected, self._accepted):
            counts[0] *= faster
            counts[1] *= faster
        factor = float(DECAY ** (now - self._now))
        factor = min(factor, _MOST / self._rounds) if self._rounds else factor
        self._now = now
        self._sums = [factor * one for one in self._sums]
        self._seen = [factor * one for one in self._seen]
        self._depths, self._rounds = factor * self._depths, factor * self._rounds
