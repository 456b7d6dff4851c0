"""The speculator's drafter block in trees, as EAGLE-2 drafts (Li et al., EMNLP 2024), sized by measured time.

A tree verifies several drafts for one place, and so loses less where the block is not sure. What it costs is
rows: how many are worth it depends on the machine, on the weights, and on the text.
"""

from __future__ import annotations

from specee.policies import settings
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
from specee.policies.rounds import FEW_TURNS
from specee.policies.tree_sizes import TreeSizes


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
        self._sizes = TreeSizes(self.name, model, self._nodes)
        return Needs((self._source,), latency=self._measured)

    def plan(self, observation: Observation) -> Speculate:
        """Each sequence with a tree of its own size; a prompt comes first by itself."""
        drafts = tuple([self._draft(view, observation) for view in observation.sequences])
        return Speculate(drafts, turns=FEW_TURNS)

    def observe(self, outcome: Outcome) -> None:
        """Learn what trees take, and how often they are right."""
        if self._measured:
            self._sizes.observe(outcome)

    def _draft(self, view: SequenceView, observation: Observation) -> Draft:
        if self._measured:
            return self._sizes.draft(view, self._source, observation)
        room = 0 if view.fresh else view.remaining - 1
        return Draft(view.id, self._source, min(self._nodes, room), self._threshold)
