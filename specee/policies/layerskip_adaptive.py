"""Self-speculation whose length follows what is accepted: one more after success, one less after failure."""

from __future__ import annotations

from specee.policies.exits import Exit
from specee.policies.lengths import Lengths
from specee.policies.plans import ModelView, Needs, Observation, Outcome, Speculate
from specee.policies.rounds import FEW_TURNS, speculate


class LayerSkipAdaptive:
    """LayerSkip with a speculation length of its own for each sequence.

    It starts at ``speculation_length``, and is at most ``longest``: see :class:`.Lengths`. ``exit_layer`` and
    ``adapted`` are those of :class:`.LayerSkip`. Raises ConfigurationError.
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
        self._exit = Exit(self.name, exit_layer, adapted)
        self._lengths = Lengths(self.name, speculation_length, longest)

    def begin(self, model: ModelView) -> Needs:
        """Forget all lengths, find the exit layer. Raises ConfigurationError if there is none such."""
        self._source = self._exit.source(model.layers)
        self._lengths.forget()
        self._latest: Speculate | None = None
        return Needs((self._source,))

    def plan(self, observation: Observation) -> Speculate:
        """Each sequence at its own length."""
        self._latest = speculate(
            observation,
            self._source,
            lambda view: self._lengths.of(view.id),
            latest=self._latest,
            turns=FEW_TURNS,
        )
        return self._latest

    def observe(self, outcome: Outcome) -> None:
        """Lengthen or shorten."""
        self._lengths.observe(outcome)
