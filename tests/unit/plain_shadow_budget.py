"""How much time shadow tokens may take: a share of what the request takes, spent when there is enough."""

from __future__ import annotations

ASIDE, NEAR, DRAFTING = 0.01, 0.02, 0.05
"""Shares of the request's time: while nothing is drafted; while it nearly pays; and while it pays."""
_AHEAD = 0.5  # of the tokens that may still come, which are counted on before they are there


class ShadowBudget:
    """Of one sequence."""

    def __init__(self) -> None:
        self._elapsed = self._drafting = self._spent = 0.0

    def note(self, seconds: float, shadow: float, *, drafting: bool) -> None:
        """A step took ``seconds``, ``shadow`` of them for shadow tokens."""
        self._spent += shadow
        if drafting:
            self._drafting += seconds
        else:
            self._elapsed += seconds

    def left(self, coming: float, *, near: bool) -> float:
        """Seconds that can be spent, with plain decoding of all that may come taking ``coming``."""
        aside = (NEAR if near else ASIDE) * (self._elapsed + _AHEAD * coming)
        return aside + DRAFTING * self._drafting - self._spent
