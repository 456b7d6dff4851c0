"""Speculation lengths that follow what is accepted: one more after success, one less after failure."""

from __future__ import annotations

from specee.errors import ConfigurationError
from specee.policies import settings
from specee.policies.plans import Outcome


class Lengths:
    """A speculation length of its own for each sequence.

    It starts at ``first``, grows by one up to ``longest`` when all drafts of a round were accepted, and else
    shrinks by one down to 1. Of several turns of one plan the latest one counts. Raises ConfigurationError
    for a ``first`` that is not 1..``longest``.
    """

    def __init__(self, policy: str, first: int, longest: int) -> None:
        self._first = settings.whole(policy, "speculation_length", first, 1)
        self._longest = settings.whole(policy, "longest", longest, 1)
        if longest < first:
            raise ConfigurationError(
                f"policy {policy}: speculation_length={first} is over longest={longest}: start at or below it"
            )
        self._lengths: dict[int, int] = {}
        self._planned: dict[int, int] = {}

    def forget(self) -> None:
        """Start anew."""
        self._lengths, self._planned = {}, {}

    def of(self, sequence: int) -> int:
        """Where the sequence is now: what is planned for it."""
        length = self._planned[sequence] = self._lengths.get(sequence, self._first)
        return length

    def observe(self, outcome: Outcome) -> None:
        """Lengthen or shorten; rounds without drafts say nothing."""
        for entry in outcome.rounds:
            if entry.drafted:
                planned = self._planned.get(entry.sequence, self._first)
                length = planned + (1 if entry.accepted == entry.drafted else -1)
                self._lengths[entry.sequence] = min(self._longest, max(1, length))
