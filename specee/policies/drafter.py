"""The speculator's drafter block, as EAGLE drafts (Li et al., ICML 2024), in chains.

The length follows what is accepted, as in :mod:`.layerskip_adaptive`; and a chain ends after a draft that is
not sure, since what comes after a wrong one is wasted.
"""

from __future__ import annotations

from specee.errors import ConfigurationError
from specee.policies import settings
from specee.policies.lengths import Lengths
from specee.policies.plans import DrafterBlock, ModelView, Needs, Observation, Outcome, Speculate
from specee.policies.rounds import FEW_TURNS, speculate


class Drafter:
    """Draft with the block of the loaded speculator.

    Each sequence begins with ``speculation_length`` tokens, and grows to ``longest`` at most. ``threshold``:
    the confidence under which a draft is the last one. Raises ConfigurationError.
    """

    name = "drafter"

    def __init__(self, speculation_length: int = 3, longest: int = 8, threshold: float = 0.4) -> None:
        self._lengths = Lengths(self.name, speculation_length, longest)
        self._threshold = settings.share(self.name, "threshold", threshold)

    def begin(self, model: ModelView) -> Needs:
        """Forget all lengths. Raises ConfigurationError for a model without a block."""
        if model.drafter is None:
            raise ConfigurationError(
                "policy drafter: no drafter block is loaded: load a speculator file that has one, or use "
                "another policy"
            )
        self._lengths.forget()
        self._latest: Speculate | None = None
        return Needs((DrafterBlock(),))

    def plan(self, observation: Observation) -> Speculate:
        """Each sequence at its own length."""
        self._latest = speculate(
            observation,
            DrafterBlock(),
            lambda view: self._lengths.of(view.id),
            lambda _: self._threshold,
            latest=self._latest,
            turns=FEW_TURNS,
        )
        return self._latest

    def observe(self, outcome: Outcome) -> None:
        """Lengthen or shorten."""
        self._lengths.observe(outcome)
