"""How large a tree each sequence of a generation drafts: what policies with trees of measured sizes share."""

from __future__ import annotations

from specee.errors import ConfigurationError
from specee.policies.chain_cost import ChainCost
from specee.policies.latency import Latency
from specee.policies.objective import Objective, objective_of
from specee.policies.plans import (
    Draft,
    DrafterTree,
    DraftSource,
    ModelView,
    Observation,
    Outcome,
    SequenceView,
)
from specee.policies.prune_cost import PruneCost
from specee.policies.tree_choice import TreeChoice


class TreeSizes:
    """Of all sequences of the policy called ``name``; ``most``: nodes of a tree.

    ``pruning``: None where predictors have no part; with them every tree is pruned. Raises ConfigurationError
    for a model without a drafter block.
    """

    def __init__(self, name: str, model: ModelView, most: int, pruning: PruneCost | None = None) -> None:
        if model.drafter is None:
            raise ConfigurationError(
                f"policy {name}: no drafter block is loaded: load a speculator file that has one, or use "
                "another policy"
            )
        self._name, self._layers, self._most, self._pruning = name, model.layers, most, pruning
        self._cost = ChainCost(model.drafter, DrafterTree)
        self._choices: dict[int, TreeChoice] = {}
        self._rounds: dict[int, int] = {}
        self._objective: tuple[Latency, int, Objective] | None = None

    def draft(
        self, view: SequenceView, source: DraftSource, observation: Observation, layers: tuple[int, ...] = ()
    ) -> Draft:
        """The tree worth most; none where plain decoding is worth more, and for a prompt."""
        objective = self._made(observation)
        choice = self._choices.get(view.id)
        if choice is None:
            choice = TreeChoice(self._cost, self._most, self._pruning, whole=False)
            self._choices[view.id] = choice
        plan = choice.best(objective, float(self._rounds.get(view.id, 0)))
        room = 0 if view.fresh else view.remaining - 1
        nodes = min(plan.nodes, room) if plan.value > 1 else 0
        deepen = plan.deepen_from
        return Draft(view.id, source, nodes, plan.stop_below, layers=layers, deepen_from=deepen)

    def observe(self, outcome: Outcome) -> None:
        """Learn what trees take, and how often they are right."""
        self._cost.learn(outcome)
        if self._pruning is not None:
            self._pruning.learn(outcome)
        for entry in outcome.rounds:
            now = self._rounds[entry.sequence] = self._rounds.get(entry.sequence, 0) + 1
            if entry.drafted or entry.pruned:
                self._choices[entry.sequence].learn_round(entry, float(now))

    def _made(self, observation: Observation) -> Objective:
        """Of the observation's latency table and number of sequences."""
        latency, count = observation.latency, len(observation.sequences)
        if latency is None:
            raise ConfigurationError(
                f"policy {self._name} plans in measured seconds, and the observation has no latency table: "
                "give it one, or use measured=False"
            )
        known = self._objective
        if known is None or known[0] is not latency or known[1] != count:
            self._cost.begin(latency)
            if self._pruning is not None:
                self._pruning.begin(latency)
            known = self._objective = latency, count, objective_of(latency, self._layers, count)
        return known[2]
