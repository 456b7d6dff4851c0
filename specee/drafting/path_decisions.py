"""What predictors have said of a tree's nodes so far, and what follows for its branches and its paths.

A node whose predictor is sure has *decided* what comes after it. Its other branches lead nowhere then, and
are dropped with all that is below them; paths leave by SpecEE's merged mapping. One walk over the nodes a
layer, parents first, whatever the number of paths.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from specee.drafting.merged_mapping import HyperTokens


class PathDecisions:
    """Of one tree: ``tokens`` and ``parents`` of its nodes, of which the first is the root, parents first.

    ``asked``: nodes that predictors can be asked about, ascending, each with its parent. Others have no say:
    their parents decide about them, and paths end before them.
    """

    def __init__(self, tokens: Sequence[int], parents: Sequence[int], asked: Sequence[int]) -> None:
        self._tokens, self._parents = tokens, parents
        self._asked = tuple(asked)
        self._place = {node: at for at, node in enumerate(asked)}
        self._paths = HyperTokens([self._place.get(parents[node], -1) for node in asked])
        self.live = list(range(len(tokens)))
        """Nodes that are still in the pass, ascending."""
        self.decided: dict[int, int] = {}
        """The token after each node that has decided."""
        self.layers: dict[int, int] = {}
        """Where each of them did so."""

    @property
    def waiting(self) -> list[int]:
        """Nodes whose predictors are still to be asked, ascending."""
        return [self._asked[at] for at in self._paths.waiting]

    def decide(self, layer: int, fired: Mapping[int, int]) -> list[int]:
        """Tokens after nodes that decide at ``layer``; gives the last nodes of the paths that leave at it.

        :attr:`live` is without the branches that this rules out. A path leaves at the layer of the latest of
        its nodes, and at most one of them can: every node on it decides for the next one.
        """
        self.decided.update(fired)
        self.layers.update(dict.fromkeys(fired, layer))
        gone: set[int] = set()
        for node in self.live[1:]:
            parent = self._parents[node]
            if parent in gone or self.decided.get(parent, self._tokens[node]) != self._tokens[node]:
                gone.add(node)
        self.live = [node for node in self.live if node not in gone]
        self._paths.drop([self._place[node] for node in gone if node in self._place])
        return [self._asked[at] for at in self._paths.see([self._place[node] for node in fired])]
