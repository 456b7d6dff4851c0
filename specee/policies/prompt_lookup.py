"""Prompt lookup: drafts are copied from earlier text, no model at all.

Saxena, "Prompt lookup decoding", 2023. The length follows what is accepted, as in :mod:`.layerskip_adaptive`:
on a processor several rows cost more than one, and where text does not repeat itself drafts would only cost.
"""

from __future__ import annotations

from specee.errors import ConfigurationError
from specee.policies import settings
from specee.policies.lengths import Lengths
from specee.policies.plans import ModelView, Needs, NgramLookup, Observation, Outcome, Speculate
from specee.policies.rounds import ANY_TURNS, speculate


class PromptLookup:
    """Copy tokens from where the latest ones occurred before.

    ``longest_ngram`` to ``shortest_ngram`` latest tokens are looked up, the longest that is found counts; a
    step without a match is a plain one. Each sequence begins with copies of ``speculation_length`` tokens,
    and grows to ``longest`` at most: see :class:`.Lengths`. Raises ConfigurationError.
    """

    name = "prompt-lookup"

    def __init__(
        self,
        speculation_length: int = 3,
        longest: int = 12,
        longest_ngram: int = 4,
        shortest_ngram: int = 2,
    ) -> None:
        self._lengths = Lengths(self.name, speculation_length, longest)
        most = settings.whole(self.name, "longest_ngram", longest_ngram, 1)
        least = settings.whole(self.name, "shortest_ngram", shortest_ngram, 1)
        if most < least:
            raise ConfigurationError(
                f"policy {self.name}: longest_ngram={most} is under shortest_ngram={least}"
            )
        self._source = NgramLookup(most, least)

    def begin(self, model: ModelView) -> Needs:
        """Forget all lengths; any model will do."""
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
            turns=ANY_TURNS,  # a copy ends them
        )
        return self._latest

    def observe(self, outcome: Outcome) -> None:
        """Lengthen or shorten."""
        self._lengths.observe(outcome)
