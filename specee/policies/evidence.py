"""What is known of one layer's drafts: decayed counts of those that were right, and of how sure they were."""

from __future__ import annotations

from collections.abc import Sequence

from specee.policies.objective import Acceptance

DECAY = 0.95
"""What a count is worth one round later, as DEL has it."""
_PRIOR = 0.5  # drafts' worth of doubt, half of them right: nothing is certain after a few


class Evidence:
    """Of one layer, or of the speculator's block, for one sequence.

    Of exit layers that `del` and `auto` choose among it is in csrc/policy/evidence.h.
    """

    __slots__ = (
        "_hits",
        "_hits_sure",
        "_hits_trust",
        "_misses",
        "_misses_sure",
        "_misses_trust",
        "_round",
    )

    def __init__(self) -> None:
        self._hits = self._misses = 0.0
        self._hits_trust = self._misses_trust = 0.0  # sums of confidences
        self._hits_sure = self._misses_sure = 0.0  # those that reached the threshold of their time
        self._round = 0.0

    def add(self, matches: Sequence[bool], confidences: Sequence[float], now: float) -> None:
        """Drafts of round ``now``, which is not before any earlier one."""
        if now != self._round:
            self.fade(DECAY ** (now - self._round))
            self._round = now
        threshold = self.threshold
        for match, confidence in zip(matches, confidences, strict=True):
            sure = confidence >= threshold
            if match:
                self._hits += 1
                self._hits_trust += confidence
                self._hits_sure += sure
            else:
                self._misses += 1
                self._misses_trust += confidence
                self._misses_sure += sure

    def cap(self, most: float) -> None:
        """Make it worth ``most`` drafts if it is worth more; rates stay what they are."""
        seen = self._hits + self._misses
        if seen > most:
            self.fade(most / seen)

    def fade(self, factor: float) -> None:
        """Make it worth so many times what it is; rates stay what they are."""
        self._hits *= factor
        self._misses *= factor
        self._hits_trust *= factor
        self._misses_trust *= factor
        self._hits_sure *= factor
        self._misses_sure *= factor

    def weight(self, now: float) -> float:
        """How many drafts' worth it is by round ``now``."""
        seen, age = self._hits + self._misses, now - self._round
        return seen * float(DECAY**age) if age else seen

    @property
    def seen(self) -> bool:
        """Whether there has been anything."""
        return self._hits + self._misses > 0

    @property
    def raw_rate(self) -> float:
        """Hits over hits and misses, as DEL has it; 0 without any."""
        seen = self._hits + self._misses
        return self._hits / seen if seen else 0.0

    @property
    def rate(self) -> float:
        """The same with some doubt."""
        return (self._hits + _PRIOR / 2) / (self._hits + self._misses + _PRIOR)

    @property
    def threshold(self) -> float:
        """DEL's: halfway between the mean confidence of hits and that of misses.

        With no hit yet those are taken to be certain, with no miss yet those to be worth nothing.
        """
        hits = self._hits_trust / self._hits if self._hits else 1.0
        misses = self._misses_trust / self._misses if self._misses else 0.0
        return (hits + misses) / 2

    @property
    def acceptance(self) -> Acceptance:
        """By whether the threshold was reached."""
        sure, seen = self._hits_sure + self._misses_sure, self._hits + self._misses
        unsure = seen - sure
        return Acceptance(
            (sure + _PRIOR / 2) / (seen + _PRIOR),
            (self._hits_sure + _PRIOR / 2) / (sure + _PRIOR),
            (self._hits - self._hits_sure + _PRIOR / 2) / (unsure + _PRIOR),
        )
