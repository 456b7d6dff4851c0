"""Paths of a tree decided from its nodes, against every path gone through one by one."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specee.drafting.merged_mapping import HyperTokens, path_layers, row_layers

LAYERS = 12


@st.composite
def trees(draw: st.DrawFn, most: int = 60) -> tuple[list[int], list[int]]:
    """Parents, and where each node by itself would leave."""
    nodes = draw(st.integers(1, most))
    parents = [draw(st.integers(-1, node - 1)) for node in range(nodes)]
    return parents, draw(st.lists(st.integers(1, LAYERS), min_size=nodes, max_size=nodes))


def path(parents: Sequence[int], node: int) -> list[int]:
    """From below the root down to the node."""
    found = [node]
    while parents[found[0]] >= 0:
        found.insert(0, parents[found[0]])
    return found


def leaves(parents: Sequence[int]) -> list[int]:
    return [node for node in range(len(parents)) if node not in parents]


@given(tree=trees())
def test_a_path_leaves_with_the_latest_of_its_nodes(tree: tuple[list[int], list[int]]) -> None:
    parents, layers = tree
    found = path_layers(parents, layers)
    assert found == [max(layers[one] for one in path(parents, node)) for node in range(len(parents))]


@given(tree=trees())
def test_a_row_goes_as_deep_as_the_last_path_through_it(tree: tuple[list[int], list[int]]) -> None:
    parents, layers = tree
    paths = [path(parents, leaf) for leaf in leaves(parents)]
    for node, found in enumerate(row_layers(parents, layers)):
        assert found == max(max(layers[one] for one in way) for way in paths if node in way)


@given(tree=trees(), data=st.data())
def test_layer_by_layer_it_is_the_same(tree: tuple[list[int], list[int]], data: st.DataObject) -> None:
    """Nodes fire where they would leave; some fire again later, which changes nothing."""
    parents, layers = tree
    tokens, left = HyperTokens(parents), {}
    for layer in range(1, LAYERS + 1):
        waiting = [node for node in range(len(parents)) if layers[node] >= layer]
        assert tokens.waiting == waiting, "each node is asked until it fires"
        fired = [node for node, own in enumerate(layers) if own == layer]
        again = [node for node, own in enumerate(layers) if own < layer]
        if again:
            fired += data.draw(st.lists(st.sampled_from(again), max_size=3))
        for leaf in tokens.see(fired):
            assert leaf not in left, "a path leaves once"
            left[leaf] = layer
    assert list(tokens.leaves) == leaves(parents)
    decided = path_layers(parents, layers)
    assert left == {leaf: decided[leaf] for leaf in leaves(parents)}


def test_the_leaf_alone_does_not_decide() -> None:
    """The negative control: a rule that looks at leaves, or at the earliest node, is another one."""
    parents, layers = [-1, 0, 0, 1], [5, 2, 9, 3]
    assert path_layers(parents, layers) == [5, 5, 9, 5]
    assert [layers[leaf] for leaf in leaves(parents)] != [path_layers(parents, layers)[i] for i in (2, 3)]
    assert row_layers(parents, layers) == [9, 5, 9, 5]
    # A path that could leave early keeps no row longer than the paths that go on need it.
    assert row_layers([-1, 0], [5, 2]) == [5, 5]


class Counted(list[int]):
    """A list that counts how often its entries are looked at."""

    looks = 0

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        Counted.looks += 1
        return super().__getitem__(index)

    def __iter__(self):  # type: ignore[no-untyped-def]
        for entry in super().__iter__():
            Counted.looks += 1
            yield entry


@pytest.mark.parametrize("shape", ["chain", "star", "binary"])
def test_work_grows_with_nodes_alone(shape: str) -> None:
    """As many looks a node in a tree of 8 as in one of 60, however many paths and however long."""
    looks = {}
    for nodes in (8, 15, 30, 60):
        parents = {
            "chain": [node - 1 for node in range(nodes)],
            "star": [-1] * nodes,
            "binary": [(node - 1) // 2 if node else -1 for node in range(nodes)],
        }[shape]
        Counted.looks = 0
        row_layers(Counted(parents), Counted([1 + node % LAYERS for node in range(nodes)]))
        looks[nodes] = Counted.looks
    assert all(count == looks[8] * nodes / 8 for nodes, count in looks.items()), looks


def test_what_is_no_tree_is_refused() -> None:
    for parents in ([0], [-2], [-1, 2, 1]):
        with pytest.raises(ValueError, match="parent"):
            path_layers(parents, [1] * len(parents))
        with pytest.raises(ValueError, match="parent"):
            HyperTokens(parents)
    with pytest.raises(ValueError, match="argument 2"):
        path_layers([-1, 0], [1])
    with pytest.raises(ValueError, match="node 2"):
        HyperTokens([-1, 0]).see([2])
