"""What drafts of the speculator's block take: guessed from bytes, then learnt from those that were drafted.

The first draft of a chain, or the first depth of a tree, finds the block's weights in memory, later ones in
the caches if they fit. A tree goes on from nodes whose children then turn out not to be worth a row, so its
depths are passes of the block to one more than those that are seen of it.
"""

from __future__ import annotations

from specee.policies.latency import Latency
from specee.policies.objective import Objective, RoundTimes
from specee.policies.plans import DrafterBlock, DrafterTree, DraftSource, Outcome

_LATER = 0.5  # of what the first takes, until chains have been seen
_RATE = 0.1  # of the newest deviation that is believed; of the first ones more, as in a mean
_CHANGE = 0.03  # of either, before plans are made with it
_FAR = 0.5  # parts of what was expected: a round that is farther off was disturbed


class ChainCost:
    """Of drafts of one ``kind``. ``share``: bytes that a draft reads, over those of the model's head."""

    def __init__(self, share: float, kind: type[DraftSource] = DrafterBlock) -> None:
        self._share = share
        self._kind = kind
        self.first = self.each = 0.0
        """Seconds of the first draft of a chain, and of each one after it; of a tree, of its depths."""
        self._seen = 0  # rounds that were learnt from
        self._planned = 0.0, 0.0  # what plans are made with
        self._times: tuple[Objective, RoundTimes] | None = None

    def begin(self, latency: Latency) -> None:
        """A guess, where there is none yet."""
        if self.first == 0:
            self.first = self._share * latency.head_seconds(1) + latency.call
            self.each = _LATER * self.first
            if self._kind is DrafterTree:
                self.first += self.each  # of a depth that comes to nothing

    def times(self, objective: Objective) -> RoundTimes:
        """Of rounds with a chain."""
        first, each = self._planned
        if abs(self.first - first) > _CHANGE * first or abs(self.each - each) > _CHANGE * each:
            self._planned, self._times = (self.first, self.each), None
        if self._times is None or self._times[0] is not objective:
            self._times = objective, objective.chain_times(*self._planned)
        return self._times[1]

    def learn(self, outcome: Outcome) -> None:
        """From a round in which nothing else drafted; those of several sequences are drafted together."""
        drafted = [entry for entry in outcome.rounds if entry.drafted]
        if not drafted or self.first == 0:
            return
        if not all(isinstance(entry.source, self._kind) for entry in drafted):
            return
        later = max(entry.depth or entry.drafted for entry in drafted) - 1
        expected = self.first + later * self.each
        self._seen += 1
        off = max(-_FAR * expected, min(_FAR * expected, outcome.times.draft - expected))
        off *= max(_RATE, 1 / self._seen) / (1 + later * later)
        self.first = max(self.first + off, 0.1 * self.first)
        self.each = max(self.each + later * off, 0.1 * self.each)
