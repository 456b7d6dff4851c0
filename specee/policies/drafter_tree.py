"""The speculator's drafter block in trees, as EAGLE-2 drafts (Li et al., EMNLP 2024), sized by measured time.

A tree verifies several drafts for one place, and so loses less where the block is not sure. What it costs is
rows: how many are worth it depends on the machine, on the weights, and on the text.
"""

from __future__ import annotations

from specee.errors import ConfigurationError
from specee.policies import settings
from specee.policies.chain_cost import ChainCost
from specee.policies.latency import Latency
from specee.policies.objective import Objective
from specee.policies.plans import (
    Draft,
    DrafterTree,
    ModelView,
    Needs,
    Observation,
    Outcome,
    SequenceView,
    Speculate,
)
from specee.policies.tree_choice import TreeChoice


class DrafterTrees:
    """Draft trees with the block of the loaded speculator.

    ``nodes``: most drafts of a tree; ``depth``: most in a row; at each depth ``width`` nodes get children,
    ``children`` at most each. ``measured``: each round has as many nodes as are expected to give most tokens
    a second, none where drafting does not pay. Else there are ``nodes`` always, but for those whose path is
    less likely than ``threshold``. Raises ConfigurationError.
    """

    name = "drafter-tree"

    def __init__(
        self,
        nodes: int = 16,
        depth: int = 8,
        width: int = 4,
        children: int = 4,
        threshold: float = 0.0,
        *,
        measured: bool = True,
    ) -> None:
        self._nodes = settings.whole(self.name, "nodes", nodes, 1)
        self._threshold = settings.share(self.name, "threshold", threshold)
        self._measured = settings.flag(self.name, "measured", measured)
        self._source = DrafterTree(
            settings.whole(self.name, "depth", depth, 1),
            settings.whole(self.name, "width", width, 1),
            settings.whole(self.name, "children", children, 1),
        )

    def begin(self, model: ModelView) -> Needs:
        """Forget all sequences. Raises ConfigurationError for a model without a block."""
        if model.drafter is None:
            raise ConfigurationError(
                f"policy {self.name}: no drafter block is loaded: load a speculator file that has one, or "
                "use another policy"
            )
        self._layers = model.layers
        self._cost = ChainCost(model.drafter, DrafterTree)
        self._choices: dict[int, TreeChoice] = {}
        self._rounds: dict[int, int] = {}
        self._objective: tuple[Latency, int, Objective] | None = None
        return Needs((self._source,), latency=self._measured)

    def plan(self, observation: Observation) -> Speculate:
        """Each sequence with a tree of its own size; a prompt comes first by itself."""
        objective = self._made(observation) if self._measured else None
        return Speculate(tuple([self._draft(view, objective) for view in observation.sequences]))

    def observe(self, outcome: Outcome) -> None:
        """Learn what trees take, and how often they are right."""
        if not self._measured:
            return
        self._cost.learn(outcome)
        for entry in outcome.rounds:
            now = self._rounds[entry.sequence] = self._rounds.get(entry.sequence, 0) + 1
            if entry.drafted:
                choice = self._choices[entry.sequence]
                choice.learn(entry.confidences, entry.accepted, entry.depth, float(now))

    def _draft(self, view: SequenceView, objective: Objective | None) -> Draft:
        room = 0 if view.fresh else view.remaining - 1
        if objective is None:
            return Draft(view.id, self._source, min(self._nodes, room), self._threshold)
        choice = self._choices.get(view.id)
        if choice is None:
            choice = self._choices[view.id] = TreeChoice(self._cost, self._nodes)
        plan = choice.best(objective, float(self._rounds.get(view.id, 0)))
        nodes = min(plan.nodes, room) if plan.value > 1 else 0
        return Draft(view.id, self._source, nodes, plan.stop_below, deepen_from=plan.deepen_from)

    def _made(self, observation: Observation) -> Objective:
        """Of the observation's latency table and number of sequences."""
        latency, count = observation.latency, len(observation.sequences)
        if latency is None:
            raise ConfigurationError(
                f"policy {self.name} plans in measured seconds, and the observation has no latency table: "
                "give it one, or use measured=False"
            )
        known = self._objective
        if known is None or known[0] is not latency or known[1] != count:
            self._cost.begin(latency)
            known = self._objective = latency, count, Objective(latency, self._layers, count)
        return known[2]
