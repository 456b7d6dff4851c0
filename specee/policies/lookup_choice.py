"""How many tokens one sequence copies where prompt lookup finds something to copy."""

from __future__ import annotations

from specee.policies.objective import Choice, Objective

_DECAY = 0.9  # of what a round of copying tells, a round of copying later
_FADE = 0.98  # and a round of any kind later: what did not pay is tried again after a while
_MOST = 20.0  # right ones are enough: what comes after a long run of them must count for something
_PRIOR, _TRUST = 1.0, 0.7  # copies' worth of doubt, and the share of them taken to be right


class LookupChoice:
    """Of one sequence. Where nothing is found, nothing is spent, so only rounds with a copy count."""

    def __init__(self) -> None:
        self._hits = self._misses = 0.0
        self._round = 0.0

    def learn(self, drafted: int, accepted: int, now: float) -> None:
        """Of a copy of ``drafted`` tokens in round ``now`` the first ``accepted`` were right."""
        factor = self._factor(now) * _DECAY
        self._round = now
        self._hits = min(self._hits * factor + accepted, _MOST)
        self._misses = self._misses * factor + (accepted < drafted)

    def rate(self, now: float) -> float:
        """Share of copied tokens that are right, up to the first wrong one."""
        factor = self._factor(now)
        seen = (self._hits + self._misses) * factor
        return (self._hits * factor + _PRIOR * _TRUST) / (seen + _PRIOR)

    def best(self, objective: Objective, now: float) -> Choice:
        """Length of a copy, and its value where there is one."""
        return objective.best(0, 0.0, self.rate(now))

    def _factor(self, now: float) -> float:
        return float(_FADE ** (now - self._round))
