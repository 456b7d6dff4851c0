"""How much time shadow tokens may take: a share of what the request takes, spent when there is enough."""

from __future__ import annotations

ASIDE, DRAFTING = 0.015, 0.08
"""Shares of the request's time, while nothing is drafted and while drafting pays."""
_AHEAD = 64  # tokens of the answer that may be counted on before they are there


class ShadowBudget:
    """Of one sequence."""

    def __init__(self) -> None:
        self._elapsed = self._spent = 0.0
        self._rate = ASIDE
        self._allowed = 0.0

    def note(self, seconds: float, shadow: float, *, drafting: bool) -> None:
        """A step took ``seconds``, ``shadow`` of them for shadow tokens."""
        self._elapsed += seconds
        self._spent += shadow
        self._rate = DRAFTING if drafting else ASIDE
        self._allowed += seconds * self._rate

    def affords(self, seconds: float, remaining: int, plain: float) -> bool:
        """Whether ``seconds`` can be spent, with ``remaining`` tokens to come at ``plain`` seconds each."""
        coming = min(remaining, _AHEAD) * plain * self._rate
        return self._spent + seconds <= self._allowed + coming
