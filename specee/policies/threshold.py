"""Draft while the drafts are confident; how confident is enough follows what is accepted.

Zhang et al., "Draft & Verify: Lossless large language model acceleration via self-speculative decoding", ACL
2024, whose draft-exiting threshold this is. There one threshold serves the one sequence; here each has its
own.
"""

from __future__ import annotations

from dataclasses import dataclass

from specee.policies import settings
from specee.policies.exits import Exit
from specee.policies.plans import ModelView, Needs, Observation, Outcome, Speculate
from specee.policies.rounds import FEW_TURNS, speculate

STEP = 0.01  # how far the threshold is pushed a round
RATE_MEMORY = 0.5  # weight of the acceptance rate so far against the latest round's
THRESHOLD_MEMORY = 0.9  # weight of the threshold so far against the pushed one


@dataclass
class _Adapted:
    """Of one sequence: smoothed acceptance rate, and the threshold that follows from it."""

    rate: float
    threshold: float


class Threshold:
    """Static exit layer; drafting stops under a confidence that keeps acceptance near a target.

    ``threshold``: where the confidence to stop below starts, 0 to 1. ``target``: the acceptance rate aimed
    for; below it the threshold rises, above it falls. ``longest``: most tokens drafted a round.
    ``exit_layer`` and ``adapted`` are those of :class:`.LayerSkip`. Raises ConfigurationError.
    """

    name = "threshold"

    def __init__(
        self,
        exit_layer: int | None = None,
        threshold: float = 0.6,
        target: float = 0.9,
        longest: int = 12,
        *,
        adapted: bool = False,
    ) -> None:
        self._exit = Exit(self.name, exit_layer, adapted)
        self._first = settings.share(self.name, "threshold", threshold)
        self._target = settings.share(self.name, "target", target)
        self._longest = settings.whole(self.name, "longest", longest, 0)
        self._states: dict[int, _Adapted] = {}

    def begin(self, model: ModelView) -> Needs:
        """Forget all thresholds, find the exit layer. Raises ConfigurationError if there is no such layer."""
        self._source = self._exit.source(model.layers)
        self._states = {}
        return Needs((self._source,))

    def plan(self, observation: Observation) -> Speculate:
        """Each sequence with its own threshold."""
        return speculate(
            observation,
            self._source,
            lambda _: self._longest,
            lambda view: self._of(view.id).threshold,
            turns=FEW_TURNS,  # in which it moves by half a hundredth
        )

    def observe(self, outcome: Outcome) -> None:
        """Update the acceptance rate, then push the threshold towards the target."""
        for entry in outcome.rounds:
            if entry.drafted:
                state = self._of(entry.sequence)
                latest = entry.accepted / entry.drafted
                state.rate = RATE_MEMORY * state.rate + (1 - RATE_MEMORY) * latest
                pushed = state.threshold + (STEP if state.rate <= self._target else -STEP)
                moved = THRESHOLD_MEMORY * state.threshold + (1 - THRESHOLD_MEMORY) * pushed
                state.threshold = min(1.0, max(0.0, moved))

    def _of(self, sequence: int) -> _Adapted:
        return self._states.setdefault(sequence, _Adapted(self._target, self._first))
