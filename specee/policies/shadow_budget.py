"""How much time shadow tokens may take: a share of what the request takes, spent when there is enough."""

from __future__ import annotations

ASIDE, DRAFTING = 0.012, 0.06
"""Shares of the request's time, while nothing is drafted and while drafting pays."""
_AHEAD = 64  # tokens of the answer that may be counted on before they are there


class ShadowBudget:
    """Of one sequence."""

    def __init__(self) -> None:
        self._spent = 0.0
        self._allowed = 0.0

    def note(self, seconds: float, shadow: float, *, drafting: bool) -> None:
        """A step took ``seconds``, ``shadow`` of them for shadow tokens."""
        self._spent += shadow
        self._allowed += seconds * (DRAFTING if drafting else ASIDE)

    def affords(self, seconds: float, remaining: int, plain: float) -> bool:
        """Whether ``seconds`` can be spent, with ``remaining`` tokens to come at ``plain`` seconds each."""
        return self._spent + seconds <= self._allowed + ASIDE * min(remaining, _AHEAD) * plain
