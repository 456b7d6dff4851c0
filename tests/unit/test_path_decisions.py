"""What follows from decisions about nodes, against every path of the tree gone through one by one."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from specee.drafting.path_decisions import PathDecisions

LAYERS, TOKENS = 6, 4
Tree = tuple[list[int], list[int], list[int]]


@st.composite
def trees(draw: st.DrawFn, most: int = 30) -> Tree:
    """Tokens and parents of nodes, no siblings alike, and those that can be asked: closed upwards."""
    tokens, parents = [0], [-1]
    for _ in range(draw(st.integers(0, most))):
        parent, token = draw(st.integers(0, len(tokens) - 1)), draw(st.integers(0, TOKENS - 1))
        if (parent, token) not in zip(parents[1:], tokens[1:], strict=True):
            tokens.append(token)
            parents.append(parent)
    asked = [0]
    for node in range(1, len(tokens)):
        if parents[node] in asked and draw(st.booleans()):
            asked.append(node)
    return tokens, parents, asked


def path(parents: Sequence[int], node: int) -> list[int]:
    """From the root down to the node."""
    found = [node]
    while parents[found[0]] >= 0:
        found.insert(0, parents[found[0]])
    return found


@given(tree=trees(), data=st.data())
def test_branches_and_paths_are_those_of_every_path_by_itself(tree: Tree, data: st.DataObject) -> None:
    tokens, parents, asked = tree
    ways = [path(parents, node) for node in range(len(tokens))]
    decisions = PathDecisions(tokens, parents, asked)
    decided: dict[int, tuple[int, int]] = {}  # layer, token
    left: dict[int, int] = {}
    for layer in range(1, LAYERS + 1):
        # Nothing on a path may say otherwise than its next node.
        live = [way[-1] for way in ways if ruled_by(way, decided, tokens)]
        assert decisions.live == live
        assert decisions.waiting == [node for node in asked if node in live and node not in decided]
        fired = {
            node: data.draw(st.integers(0, TOKENS - 1))
            for node in decisions.waiting
            if data.draw(st.booleans())
        }
        decided.update({node: (layer, token) for node, token in fired.items()})
        leaving = decisions.decide(layer, fired)
        for node in leaving:
            assert node not in left
            left[node] = layer
        live = [way[-1] for way in ways if ruled_by(way, decided, tokens)]
        ends = [node for node in asked if node in live and not has_asked_child(node, tree, live)]
        whole = [node for node in ends if all(one in decided for one in ways[node])]
        assert sorted(left) == whole
        assert len(whole) <= 1, "two paths cannot both be what comes next"
    # Merged mapping: a path leaves with the latest of its nodes.
    assert left == {node: max(decided[one][0] for one in ways[node]) for node in left}
    assert decisions.layers == {node: layer for node, (layer, _) in decided.items()}
    assert decisions.decided == {node: token for node, (_, token) in decided.items()}


def ruled_by(way: Sequence[int], decided: dict[int, tuple[int, int]], tokens: Sequence[int]) -> bool:
    return all(node not in decided or decided[node][1] == tokens[below] for node, below in pairwise(way))


def has_asked_child(node: int, tree: Tree, live: Sequence[int]) -> bool:
    return any(tree[1][other] == node and other in live for other in tree[2])


def test_a_sure_root_leaves_one_branch_and_a_sure_path_leaves_with_its_latest_node() -> None:
    """0 -> 1, 2; 1 -> 3, 4; 2 -> 5: node 3 cannot be asked."""
    decisions = PathDecisions([9, 1, 2, 3, 4, 5], [-1, 0, 0, 1, 1, 2], [0, 1, 2])
    assert decisions.decide(3, {1: 4}) == []
    assert decisions.live == [0, 1, 2, 4, 5]
    assert decisions.decide(5, {0: 1}) == [1]
    assert decisions.live == [0, 1, 4]
    assert decisions.waiting == []
    assert decisions.layers == {1: 3, 0: 5}


def test_a_root_that_wants_none_of_its_branches_is_a_path_itself() -> None:
    decisions = PathDecisions([9, 1, 2], [-1, 0, 1], [0, 1])
    assert decisions.decide(2, {0: 7}) == [0]
    assert decisions.live == [0]
