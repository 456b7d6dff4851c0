"""Drafts from a shallow layer: the layer's hidden state through a head, and so on with the token it gives."""

from __future__ import annotations

from collections.abc import Sequence as Seq

import numpy as np

from specee.acceptance import FIRST_DRAFT_STREAM, draw, probabilities
from specee.backends.protocol import Backend, DraftHead, LayerChainCall, SequenceState, Work
from specee.clock import Clock
from specee.drafting.drafter import States
from specee.drafting.heads import DraftHeads
from specee.drafting.tree import DraftTree
from specee.policies import Draft, DraftCost, DraftSource, ExitLayer
from specee.policies.checks import check_exit_layer
from specee.sampling import penalised
from specee.types import Sampling


class ExitLayerDrafter:
    """Exit layers of any depth, side by side. The rows wait at their layer for verification."""

    def __init__(self, backend: Backend, heads: DraftHeads) -> None:
        self._backend = backend
        self._heads = heads

    def check(self, source: DraftSource) -> None:
        """See :meth:`.Drafter.check`."""
        assert isinstance(source, ExitLayer)
        check_exit_layer(source, self._backend.config.num_layers)
        if source.adapted:
            self._heads.of(source.layer)

    def cost(self, source: DraftSource) -> DraftCost:
        """See :meth:`.Drafter.cost`: the layers up to the exit, and the head that reads off there."""
        assert isinstance(source, ExitLayer)
        return DraftCost(source.layer, self._heads.share(source.layer) if source.adapted else 1.0)

    def reads(self, source: DraftSource) -> States:
        """See :meth:`.Drafter.reads`."""
        return States()

    def draft(self, trees: Seq[DraftTree], clock: Clock) -> None:
        """See :meth:`.Drafter.draft`. Each turn gives every open tree one token."""
        while still := [tree for tree in trees if tree.open]:
            self._advance(still, clock)
            for head, group in self._by_head(still).items():
                if any(tree.rejection for tree in group):
                    self._draw_with_distributions(group, head, clock)
                else:
                    self._draw(group, head, clock)

    def wanted(self, draft: Draft, state: SequenceState, sampling: Sampling) -> LayerChainCall:
        """The chain that a plan asks for, where the backend drafts by itself."""
        source = draft.source
        assert isinstance(source, ExitLayer)
        head = self._head(source)
        return LayerChainCall(state, source.layer, head, draft.length, draft.stop_below, sampling)

    def _head(self, source: ExitLayer) -> DraftHead | None:
        return self._heads.of(source.layer) if source.adapted else None

    def _advance(self, trees: Seq[DraftTree], clock: Clock) -> None:
        """Every tip to its layer; a layer's weights are read once for all that pass it."""
        for layer in sorted({_source(tree).layer for tree in trees}):
            passing = [tree for tree in trees if _source(tree).layer >= layer]
            clock.timed("draft", self._backend.advance, _tips(passing), layer)

    def _by_head(self, trees: Seq[DraftTree]) -> dict[DraftHead | None, list[DraftTree]]:
        groups: dict[DraftHead | None, list[DraftTree]] = {}
        for tree in trees:
            groups.setdefault(self._head(_source(tree)), []).append(tree)
        return groups

    def _draw(self, trees: Seq[DraftTree], head: DraftHead | None, clock: Clock) -> None:
        """With the noise that the full model's token will have, so that the two often agree."""
        options = [tree.sampling for tree in trees]
        drawn = clock.timed("draft_head", self._backend.draft, _tips(trees), options, head)
        for tree, token, confidence in zip(trees, drawn[0].tolist(), drawn[1].tolist(), strict=True):
            tree.extend([token], confidence)

    def _draw_with_distributions(self, trees: Seq[DraftTree], head: DraftHead | None, clock: Clock) -> None:
        """For classical rejection, which has to know what a draft was drawn from.

        Every round has a stream of noise to itself: a policy has seen the drafts that an earlier round threw
        away, and drafts made again from the same noise would be no draws to it.
        """
        logits = clock.timed("draft_head", self._backend.logits, _tips(trees), head)
        for tree, raw in zip(trees, logits, strict=True):
            path = [*tree.text, *tree.tokens[1:]]
            scores = penalised(raw, path, tree.sampling.repetition_penalty)
            chances = probabilities(scores, tree.sampling)
            token = draw(chances, tree.sampling.seed, len(path), FIRST_DRAFT_STREAM + len(tree.text))
            likely = np.exp(raw.astype(np.float64) - raw.max())
            tree.extend([token], float(likely[token] / likely.sum()), chances)


def _source(tree: DraftTree) -> ExitLayer:
    assert isinstance(tree.draft.source, ExitLayer)
    return tree.draft.source


def _tips(trees: Seq[DraftTree]) -> Work:
    return [(tree.state, [tree.tip]) for tree in trees]
