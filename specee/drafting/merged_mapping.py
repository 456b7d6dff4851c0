"""SpecEE's merged mapping (T3, arXiv 2504.08850): where the paths of a token tree leave.

Each path from the root to a leaf is one hyper-token, which leaves at a layer only when all of its nodes
would: its exit layer is the latest of theirs. Taken as combinations of nodes and layers these are
exponentially many; but the latest on a path is the later one of a node's own and of its parent's path, so
one walk over the nodes, parents first, decides all paths.

``parents[i]`` is the index of node i's parent, less than i, or -1: what :meth:`.SequenceState.branch` takes.
"""

from __future__ import annotations

from collections.abc import Sequence


def path_layers(parents: Sequence[int], layers: Sequence[int]) -> list[int]:
    """The exit layer of the path from the root down to each node; a leaf's is its hyper-token's.

    ``layers[i]``: where node i by itself would leave. Raises ValueError for what is no tree.
    """
    latest: list[int] = []
    for node, (parent, own) in enumerate(zip(parents, layers, strict=True)):
        _check(parent, node)
        latest.append(own if parent < 0 else max(own, latest[parent]))
    return latest


def row_layers(parents: Sequence[int], layers: Sequence[int]) -> list[int]:
    """How many layers each node's row goes through: until the last path through it has left.

    ``layers``: as for :func:`path_layers`. Never less for a parent than for its child. Raises ValueError.
    """
    needed = path_layers(parents, layers)
    for node in range(len(needed) - 1, -1, -1):
        parent = parents[node]
        if parent >= 0:  # whose own path never leaves after its child's
            needed[parent] = max(needed[parent], needed[node])
    return needed


class HyperTokens:
    """The same layer by layer, while predictors are asked: each node once a layer.

    A node that has fired stays so, as a token that has left does not come back. Branches may be dropped on
    the way. Raises ValueError for what is no tree.
    """

    def __init__(self, parents: Sequence[int]) -> None:
        for node, parent in enumerate(parents):
            _check(parent, node)
        self._parents = tuple(parents)
        self._fired = [False] * len(self._parents)
        self._gone = [False] * len(self._parents)
        self._left = [False] * len(self._parents)

    @property
    def leaves(self) -> tuple[int, ...]:
        """Nodes that paths end with, dropped branches aside."""
        inner = {parent for parent, gone in zip(self._parents, self._gone, strict=True) if not gone}
        return tuple([node for node, gone in enumerate(self._gone) if not gone and node not in inner])

    @property
    def waiting(self) -> list[int]:
        """Nodes whose predictors are still to be asked: their paths have not left."""
        pairs = zip(self._fired, self._gone, strict=True)
        return [node for node, (fired, gone) in enumerate(pairs) if not (fired or gone)]

    def drop(self, nodes: Sequence[int]) -> None:
        """These nodes are nobody's business any more, nor is what is below them: their paths never leave.

        A node that loses all its children ends a path itself. Raises ValueError for a node that is not there.
        """
        for node in nodes:
            self._gone[self._known(node, "dropped from")] = True
        for node, parent in enumerate(self._parents):
            self._gone[node] = self._gone[node] or (parent >= 0 and self._gone[parent])

    def see(self, fired: Sequence[int]) -> list[int]:
        """Nodes whose predictors fired at this layer; gives the leaves of the paths that leave at it.

        Raises ValueError for a node that is not there.
        """
        for node in fired:
            self._fired[self._known(node, "fired in")] = True
        whole: list[bool] = []
        for parent, own in zip(self._parents, self._fired, strict=True):
            whole.append(own and (parent < 0 or whole[parent]))
        leaving = [leaf for leaf in self.leaves if whole[leaf] and not self._left[leaf]]
        for leaf in leaving:
            self._left[leaf] = True
        return leaving

    def _known(self, node: int, what: str) -> int:
        if not 0 <= node < len(self._parents):
            raise ValueError(f"node {node} {what} a tree of {len(self._parents)}: allowed are its indices")
        return node


def _check(parent: int, node: int) -> None:
    if not -1 <= parent < node:
        raise ValueError(f"node {node} has parent {parent}: allowed are -1 and indices before its own")
