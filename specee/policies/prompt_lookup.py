"""Prompt lookup: drafts are copied from earlier text, no model at all.

Saxena, "Prompt lookup decoding", 2023.
"""

from __future__ import annotations

from specee.errors import ConfigurationError
from specee.policies import plans, settings
from specee.policies.plans import Observation, Outcome, Speculate
from specee.policies.rounds import speculate


class PromptLookup:
    """Copy up to ``speculation_length`` tokens from where the latest ones occurred before.

    ``longest_ngram`` to ``shortest_ngram`` latest tokens are looked up, the longest that is found counts. A
    step without a match is a plain one. Raises ConfigurationError.
    """

    name = "prompt-lookup"

    def __init__(self, speculation_length: int = 5, longest_ngram: int = 3, shortest_ngram: int = 2) -> None:
        self._length = settings.whole(self.name, "speculation_length", speculation_length, 0)
        longest = settings.whole(self.name, "longest_ngram", longest_ngram, 1)
        shortest = settings.whole(self.name, "shortest_ngram", shortest_ngram, 1)
        if longest < shortest:
            raise ConfigurationError(
                f"policy {self.name}: longest_ngram={longest} is under shortest_ngram={shortest}"
            )
        self._source = plans.NgramLookup(longest, shortest)

    def begin(self, layers: int) -> None:
        """Any model will do."""

    def plan(self, observation: Observation) -> Speculate:
        """The same for everyone, always."""
        return speculate(observation, self._source, lambda _: self._length)

    def observe(self, outcome: Outcome) -> None:
        """Nothing to learn: the setting is static."""
