"""Trees of drafts on their way down through the layers, while exit predictors are asked about their nodes.

Each checked layer takes two calls for all trees together: one that advances their rows, and one that asks the
layer's predictor about every node that has not decided (SpecEE's T3; Xu et al., ISCA 2025). Rows of branches
that are ruled out leave the pass there and then, and cost no further layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence as Seq
from typing import NamedTuple

from specee.backends.protocol import AskCall, Backend, ExitRows
from specee.clock import Clock
from specee.drafting.drafter_block import drawn
from specee.drafting.heads import DraftHeads
from specee.drafting.path_decisions import PathDecisions
from specee.drafting.tree import DraftTree
from specee.policies import PredictedTree, Pruned
from specee.policies.checks import needed_exits


class Left(NamedTuple):
    """A path that has left: the layer where it did, and the token after each node that has decided."""

    layer: int
    tokens: Mapping[int, int]


class _Way:
    """One tree's. ``asked``: its nodes with a say; ``first``: the first one's number among all trees'."""

    def __init__(self, tree: DraftTree, asked: Seq[int], first: int) -> None:
        source = tree.draft.source
        assert isinstance(source, PredictedTree)
        self.tree, self.asked, self.threshold = tree, asked, source.threshold
        self.decisions = PathDecisions(tree.tokens, tree.parents, asked)
        self.place = {node: first + at for at, node in enumerate(asked)}
        self.begun = tree.state.row(tree.slots[0]).done  # another source may have taken the root down before
        self.left: int | None = None  # layer

    @property
    def open(self) -> bool:
        """Whether it still goes down to be asked about."""
        return self.left is None and bool(self.decisions.waiting)

    def waiting(self, layer: int) -> list[int]:
        """Nodes to ask about at a layer: all but a root that has gone deeper, and those that have decided."""
        return [node for node in self.decisions.waiting if node or layer >= self.begun]

    def slots(self, nodes: Seq[int]) -> list[int]:
        return [self.tree.slots[node] for node in nodes]

    def decide(self, layer: int, fired: Mapping[int, int]) -> bool:
        """What predictors said at a layer: rows of branches that this rules out go. Whether a path left."""
        tree, before = self.tree, self.decisions.live
        leaving = self.decisions.decide(layer, fired)
        live = set(self.decisions.live)
        gone = [node for node in before if node not in live]
        tree.pruned += [Pruned(layer, tree.confidences[node - 1]) for node in gone]
        if tops := [node for node in gone if tree.parents[node] in live]:
            tree.state.prune(self.slots(tops))
        return bool(leaving)

    def finish(self) -> dict[int, int]:
        """The tree without those branches; gives the tokens after its nodes that have decided."""
        live, decisions = self.decisions.live, self.decisions
        self.tree.exits = [decisions.layers[node] for node in live if node in decisions.layers]
        self.tree.retain(live)
        pairs = [(at, decisions.decided.get(node)) for at, node in enumerate(live)]
        return {at: token for at, token in pairs if token is not None}


class Descent:
    """For the trees of one generation. ``heads`` have the predictors."""

    def __init__(self, backend: Backend, heads: DraftHeads) -> None:
        self._backend, self._heads = backend, heads

    def prune(self, trees: Seq[DraftTree], clock: Clock) -> None:
        """Take trees that will be verified through checked layers, and drop the branches that are ruled out.

        A node decides for its likeliest candidate. Nodes without branches have nothing to decide, and where
        all others have, nothing more is asked.
        """
        able = [(tree, sorted({*tree.parents[1:]})) for tree in trees if tree.drafted and tree.likely]
        for way in self._go(able, clock, confirm=False):
            way.finish()

    def leave(self, trees: Seq[DraftTree], clock: Clock) -> list[Left | None]:
        """Take trees through checked layers until a path leaves, unverified; None where none does.

        A node decides for the whole head's token where that is among its candidates, as in SpecEE. Nodes that
        nothing is known to follow are dropped: no path could leave with them.
        """
        for tree in trees:
            known = sorted(tree.likely)
            tops = [
                n for n, above in enumerate(tree.parents) if n not in tree.likely and above in tree.likely
            ]
            if tops:
                tree.state.prune([tree.slots[node] for node in tops])
                tree.retain(known)
        able = [(tree, range(len(tree.slots))) for tree in trees]
        found: list[Left | None] = []
        for way in self._go(able, clock, confirm=True):
            tokens = way.finish()
            found.append(None if way.left is None else Left(way.left, tokens))
        return found

    def _go(self, able: Seq[tuple[DraftTree, Seq[int]]], clock: Clock, *, confirm: bool) -> list[_Way]:
        ways: list[_Way] = []
        first = 0
        for tree, asked in able:
            ways.append(_Way(tree, asked, first))
            first += len(asked)
        candidates = [way.tree.likely[node] for way in ways for node in way.asked]
        if not candidates:
            return ways
        predictors = needed_exits(self._heads.exits)
        rows = clock.timed("draft_head", self._backend.exit_rows, predictors, candidates)
        for layer in sorted({layer for way in ways for layer in way.tree.draft.layers}):
            asking = [way for way in ways if way.open and layer in way.tree.draft.layers]
            if not asking:
                continue
            # Those that have been asked enough come along where they go deeper anyway: weights are read once.
            moving = [way for way in ways if way.left is None]
            work = [(way.tree.state, way.slots(way.decisions.live)) for way in moving]
            clock.timed("verify", self._backend.advance, work, layer)
            fired = self._sure(asking, rows, layer, clock)
            if confirm:
                self._confirm(fired, clock)
            for way, tokens in fired:
                if way.decide(layer, tokens) and confirm:
                    way.left = layer
        return ways

    def _sure(
        self, ways: Seq[_Way], rows: ExitRows, layer: int, clock: Clock
    ) -> list[tuple[_Way, dict[int, int]]]:
        """The nodes that predictors are sure of, with their likeliest candidates."""
        named = [(way, way.waiting(layer)) for way in ways]
        calls = [
            AskCall(way.tree.state, way.slots(nodes), [way.place[node] for node in nodes], drawn(way.tree))
            for way, nodes in named
        ]
        answers = iter(clock.timed("draft_head", self._backend.ask_exits, rows, layer, calls))
        found: list[tuple[_Way, dict[int, int]]] = []
        for way, nodes in named:
            own = [(node, next(answers)) for node in nodes]
            found.append((way, {node: one.token for node, one in own if one.chance > way.threshold}))
        return found

    def _confirm(self, fired: Seq[tuple[_Way, dict[int, int]]], clock: Clock) -> None:
        """Put the whole head's tokens in their place, where these are among the candidates."""
        pairs = [pair for pair in fired if pair[1]]
        if not pairs:
            return
        work = [(way.tree.state, way.slots(list(nodes))) for way, nodes in pairs]
        options = [way.tree.sampling for way, nodes in pairs for _ in nodes]
        tokens = iter(clock.timed("head", self._backend.sample, work, options).tolist())
        for way, nodes in pairs:
            for node in list(nodes):
                nodes[node] = next(tokens)
                if nodes[node] not in way.tree.likely[node]:
                    del nodes[node]
