"""What every draft source offers, and all there are."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from typing import NamedTuple, Protocol

from specee.backends.protocol import Backend
from specee.clock import Clock
from specee.drafting.heads import DraftHeads
from specee.drafting.tree import DraftTree
from specee.policies import (
    DraftCost,
    DrafterBlock,
    DrafterTree,
    DraftSource,
    ExitLayer,
    NgramLookup,
    PredictedExit,
    PredictedTree,
)


class States(NamedTuple):
    """States behind ``layers`` (ascending) of the latest ``positions`` positions."""

    layers: tuple[int, ...] = ()
    positions: int = 0


class Drafter(Protocol):
    """Grows the trees of one kind of source.

    One drafter serves all rounds of a generation. What it keeps beside the backend's rows must follow from
    committed text alone, so that roll-back needs no word to it.
    """

    def check(self, source: DraftSource) -> None:
        """Refuse a source that the model does not have, before anything runs. Raises ConfigurationError."""

    def cost(self, source: DraftSource) -> DraftCost:
        """What a token drafted by ``source`` costs. Raises ConfigurationError if there is no such head."""

    def reads(self, source: DraftSource) -> States:
        """States of the model that have to be kept for it; most sources need none."""

    def draft(self, trees: Seq[DraftTree], clock: Clock) -> None:
        """Add nodes to the open trees until none is open; several sequences share what they can.

        Layers and heads are counted as ``draft`` and ``draft_head``: the cost that a policy sees.
        """


def built_in(backend: Backend, heads: DraftHeads) -> dict[type[DraftSource], Drafter]:
    """A drafter for each kind of source."""
    from specee.drafting.columns import Columns
    from specee.drafting.drafter_block import BlockDrafter
    from specee.drafting.drafter_tree import TreeDrafter
    from specee.drafting.exit_layer import ExitLayerDrafter
    from specee.drafting.predicted_exit import PredictedExitDrafter
    from specee.drafting.predicted_tree import PredictedTreeDrafter
    from specee.drafting.prompt_lookup import PromptLookupDrafter

    chains = BlockDrafter(backend, heads, Columns(heads))
    trees = TreeDrafter(backend, heads, chains)
    return {
        ExitLayer: ExitLayerDrafter(backend, heads),
        NgramLookup: PromptLookupDrafter(backend),
        DrafterBlock: chains,
        DrafterTree: trees,
        PredictedExit: PredictedExitDrafter(backend, heads, chains.columns),
        PredictedTree: PredictedTreeDrafter(backend, heads, trees),
    }
