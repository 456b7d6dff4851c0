"""Self-speculation whose length follows what is accepted: one more after success, one less after failure."""

from __future__ import annotations

from specee.errors import ConfigurationError
from specee.policies import settings
from specee.policies.plans import ExitLayer, Observation, Outcome, Speculate
from specee.policies.rounds import speculate


class LayerSkipAdaptive:
    """LayerSkip with a speculation length of its own for each sequence.

    The length starts at ``speculation_length``, grows by one up to ``longest`` when all drafts of a round
    were accepted, and else shrinks by one down to 1. ``exit_layer`` and ``adapted`` are those of
    :class:`.LayerSkip`. Raises ConfigurationError.
    """

    name = "layerskip-adaptive"

    def __init__(
        self,
        exit_layer: int | None = None,
        speculation_length: int = 3,
        longest: int = 12,
        *,
        adapted: bool = False,
    ) -> None:
        if exit_layer is not None:
            settings.whole(self.name, "exit_layer", exit_layer, 1)
        self._asked = exit_layer
        self._first = settings.whole(self.name, "speculation_length", speculation_length, 1)
        self._longest = settings.whole(self.name, "longest", longest, 1)
        if self._longest < self._first:
            raise ConfigurationError(
                f"policy {self.name}: speculation_length={self._first} is over longest={self._longest}: "
                "start at or below it"
            )
        self._adapted = settings.flag(self.name, "adapted", adapted)
        self._lengths: dict[int, int] = {}

    def begin(self, layers: int) -> None:
        """Forget all lengths, find the exit layer. Raises ConfigurationError if there is none such."""
        self._source = ExitLayer(settings.exit_layer(self.name, self._asked, layers), self._adapted)
        self._lengths = {}

    def plan(self, observation: Observation) -> Speculate:
        """Each sequence at its own length."""
        return speculate(observation, self._source, lambda view: self._lengths.get(view.id, self._first))

    def observe(self, outcome: Outcome) -> None:
        """Lengthen or shorten; rounds without drafts say nothing."""
        for entry in outcome.rounds:
            if entry.drafted:
                length = self._lengths.get(entry.sequence, self._first)
                length += 1 if entry.accepted == entry.drafted else -1
                self._lengths[entry.sequence] = min(self._longest, max(1, length))
