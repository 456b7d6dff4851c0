"""Plain decoding: one token a step for every sequence, through every layer."""

from __future__ import annotations

from specee.policies.plans import ModelView, Needs, NextToken, Observation, Outcome


class Autoregressive:
    """The yardstick of all other policies. It learns nothing."""

    name = "autoregressive"

    def begin(self, model: ModelView) -> Needs:
        """Any model will do."""
        return Needs()

    def plan(self, observation: Observation) -> NextToken:
        """The next token of every sequence."""
        return NextToken(tuple([sequence.id for sequence in observation.sequences]))

    def observe(self, outcome: Outcome) -> None:
        """Nothing to learn: the plan never changes."""
