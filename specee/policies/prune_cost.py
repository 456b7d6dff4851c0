"""What exit predictors take beside a tree, and what they spare it: hoped at first, then as it was seen.

A node that is ruled out at layer l of L spares its row the rest, 1 - l / L of its layers. Only wrong nodes
are to be ruled out, so what is spared is counted in parts of their rows. Before anything was seen predictors
are hoped to rule out every wrong node where tokens usually leave: what could not pay even then is not tried.
"""

from __future__ import annotations

from specee.policies.latency import Latency
from specee.policies.plans import ExitView, Outcome, PredictedTree

_CALLS = 2  # more for each checked layer: one that asks, and one that goes on
_RATE = 0.3  # of the newest round's questions that is believed
_FADE = 0.9  # of what rounds have shown, a round later
_HOPE = 4.0  # nodes' worth of hope beside it


class PruneCost:
    """Of all sequences together; ``exits`` of a model of ``layers`` layers."""

    def __init__(self, exits: ExitView, layers: int) -> None:
        self._layers = layers
        left = sum(exits.shares) or 1.0
        usual = sum(layer * share for layer, share in zip(exits.layers, exits.shares, strict=True)) / left
        self._hoped = 1 - usual / layers if sum(exits.shares) else 0.0
        self._scheduled = sum(1 for share in exits.shares if share * len(exits.shares) > left)
        self._wrong = self._spared = 0.0
        self.questions = 0.0
        """Seconds that a round's questions take."""
        self._calls = 0.0

    def begin(self, latency: Latency) -> None:
        """A guess, where there is none yet."""
        self._calls = self._scheduled * latency.call
        if self.questions == 0:
            self.questions = _CALLS * self._calls

    @property
    def spared(self) -> float:
        """The part of wrong nodes' rows that they need not go."""
        return (self._spared + _HOPE * self._hoped) / (self._wrong + _HOPE)

    def learn(self, outcome: Outcome) -> None:
        """From a round that pruned trees; those of several sequences are asked about together."""
        rounds = [entry for entry in outcome.rounds if isinstance(entry.source, PredictedTree)]
        if not rounds:
            return
        if all(isinstance(entry.source, PredictedTree) for entry in outcome.rounds if entry.drafted):
            asked = outcome.times.draft_head + self._calls
            self.questions += _RATE * (asked - self.questions)
        self._wrong, self._spared = _FADE * self._wrong, _FADE * self._spared
        for entry in rounds:
            self._wrong += entry.drafted + len(entry.pruned) - entry.accepted
            self._spared += sum(1 - one.layer / self._layers for one in entry.pruned)
