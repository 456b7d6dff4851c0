"""Plain decoding: one token a turn for every sequence, through every layer."""

from __future__ import annotations

from specee.policies.plans import ModelView, Needs, NextToken, Observation, Outcome
from specee.policies.rounds import ANY_TURNS


class Autoregressive:
    """The yardstick of all other policies. It learns nothing."""

    name = "autoregressive"

    def begin(self, model: ModelView) -> Needs:
        """Any model will do."""
        self._plan = NextToken(())
        return Needs()

    def plan(self, observation: Observation) -> NextToken:
        """The next token of every sequence; the same object while these are the same."""
        running = tuple([sequence.id for sequence in observation.sequences])
        if running != self._plan.sequences:
            self._plan = NextToken(running, turns=ANY_TURNS)
        return self._plan

    def observe(self, outcome: Outcome) -> None:
        """Nothing to learn: the plan never changes."""
