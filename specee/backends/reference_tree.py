"""A tree of drafts by the reference backend's drafter block: every node from its path alone."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Seq
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from specee.backends.protocol import DraftedTree, FittedDrafter, TreeCall
from specee.backends.reference_chain import Embed
from specee.backends.reference_drafter import ReferenceColumn, checked_block
from specee.backends.reference_exits import behind_row, check_behind
from specee.backends.reference_sequence import ReferenceSequence
from specee.errors import RowError
from specee.types import ModelConfig, Sampling

Branch = Callable[[Tensor, Seq[int], Sampling, int], list[tuple[int, float]]]
"""(state, text, options, most children) -> tokens and shares, best first."""


class _Node(NamedTuple):
    """``before``: indices of the nodes on its path, the root left out, itself left out."""

    token: int
    before: tuple[int, ...]
    chance: np.float32


class ReferenceTree:
    """One call of :meth:`.Backend.draft_trees`, checked."""

    _column: ReferenceColumn

    def __init__(
        self, drafter: FittedDrafter, sequence: ReferenceSequence, call: TreeCall, config: ModelConfig
    ) -> None:
        for value, what in (
            (call.nodes, "nodes"),
            (call.depth, "drafts in a row"),
            (call.width, "nodes with children at one depth"),
            (call.children, "children of a node"),
        ):
            if value < 1:
                raise RowError(f"a tree of {value} {what}: give 1 or more")
        if sequence.speculative:
            raise RowError("a drafter drafts from the text alone: commit or drop the speculative rows first")
        self._drafter, self._column = checked_block(drafter, call.column, config)
        self._sequence, self._call = sequence, call
        check_behind(self._drafter, self._column, sequence, sequence.length - 1)

    def run(self, embed: Embed, branch: Branch) -> DraftedTree:
        """Nodes, likeliest first."""
        call, column, sequence = self._call, self._column, self._sequence
        state = behind_row(self._drafter, column, sequence, sequence.length - 1, embed)
        text = [sequence.row(slot).token for slot in range(sequence.length)]
        true = list(column.memory)  # and what was guessed of positions that wait
        nodes: list[_Node] = []
        likely: dict[int, list[int]] = {}
        memories: dict[int, Any] = {}
        frontier: list[tuple[int, Tensor]] = [(-1, state)]
        while frontier:
            first = len(nodes)
            for index, state in frontier:
                after = self._text(text, nodes, index)
                self._add(nodes, index, branch(state, after, call.sampling, call.children))
                if call.likely:
                    best = branch(state, after, Sampling(), call.likely)
                    likely[index] = [token for token, _ in best]
            chosen = self._chosen(nodes, first, column.capacity - len(true) - len(memories))
            states, frontier = dict(frontier), []
            for index in chosen:
                node = nodes[index]
                column.memory[:] = [*true, *[memories[above] for above in node.before]]
                position = column.first + len(column.memory)
                before = states[node.before[-1] if node.before else -1]
                frontier.append((index, self._drafter.row(column, position, embed(node.token), before)))
                memories[index] = column.memory[-1]
        column.memory[:] = true
        column.cut(column.length)
        return self._kept(nodes, likely)

    def _add(self, nodes: list[_Node], parent: int, children: Seq[tuple[int, float]]) -> None:
        before = () if parent < 0 else (*nodes[parent].before, parent)
        chance = np.float32(1) if parent < 0 else nodes[parent].chance
        for token, share in children:
            node = _Node(token, before, chance * np.float32(share))
            if node.chance >= self._call.stop_below or not nodes:
                nodes.append(node)

    def _chosen(self, nodes: list[_Node], first: int, room: int) -> list[int]:
        """Nodes of the newest depth, those from ``first`` on, that get children, likeliest first."""
        call = self._call
        newest = [index for index in self._best(nodes) if index >= first]
        newest = [index for index in newest if len(nodes[index].before) + 1 < call.depth]
        newest = newest[: min(call.width, room)]
        together = np.float32(0)
        for index in newest:
            together += nodes[index].chance
        return newest if together >= call.deepen_from else []

    def _best(self, nodes: list[_Node]) -> list[int]:
        return sorted(range(len(nodes)), key=lambda index: -nodes[index].chance)[: self._call.nodes]

    def _text(self, text: list[int], nodes: list[_Node], index: int) -> list[int]:
        if index < 0:
            return text
        return [*text, *[nodes[above].token for above in (*nodes[index].before, index)]]

    def _kept(self, nodes: list[_Node], likely: dict[int, list[int]]) -> DraftedTree:
        best = self._best(nodes)
        place = {index: at for at, index in enumerate(best)}
        parents = [place[nodes[i].before[-1]] if nodes[i].before else -1 for i in best]
        tokens, chances = [nodes[i].token for i in best], [float(nodes[i].chance) for i in best]
        named = [likely.get(i, []) for i in (-1, *best)] if likely else []
        return DraftedTree(tokens, parents, chances, named)
