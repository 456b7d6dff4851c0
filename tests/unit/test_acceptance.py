"""The walk down a tree of drafts, and both rules by their arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from specee.acceptance import probabilities, rejection_token, walk
from specee.types import FinishReason, Sampling


class Tree:
    """Nodes by (parent, token); node 0 is the root."""

    def __init__(self, *edges: tuple[int, int]) -> None:
        self.nodes = {edge: index for index, edge in enumerate(edges, 1)}

    def child(self, node: int, token: int) -> int | None:
        return self.nodes.get((node, token))


def follow(tree: Tree, answers: dict[int, int], end_at: int | None = None) -> tuple:
    asked: list[int] = []

    def target(node: int) -> int:
        asked.append(node)
        return answers[node]

    def ended(tokens: list[int]) -> FinishReason | None:
        return "eos" if tokens[-1] == end_at else None

    done = walk(tree, target, ended)
    return done.tokens, done.path, done.end, asked


CHAIN = Tree((0, 7), (1, 8), (2, 9))


def test_a_chain_is_followed_to_the_first_mismatch() -> None:
    assert follow(CHAIN, {0: 7, 1: 5}) == ((7, 5), (1,), None, [0, 1])
    assert follow(CHAIN, {0: 3}) == ((3,), (), None, [0])
    assert follow(CHAIN, {0: 7, 1: 8, 2: 9, 3: 4}) == ((7, 8, 9, 4), (1, 2, 3), None, [0, 1, 2, 3])
    assert follow(Tree(), {0: 3}) == ((3,), (), None, [0])


def test_nothing_is_asked_beyond_the_end() -> None:
    assert follow(CHAIN, {0: 7, 1: 8}, end_at=8) == ((7, 8), (1, 2), "eos", [0, 1])
    assert follow(CHAIN, {0: 7, 1: 6}, end_at=6) == ((7, 6), (1,), "eos", [0, 1])


def test_a_tree_is_followed_into_the_branch_that_matches() -> None:
    tree = Tree((0, 7), (0, 8), (2, 7), (1, 9))
    assert follow(tree, {0: 8, 2: 7, 3: 1}) == ((8, 7, 1), (2, 3), None, [0, 2, 3])


def test_probabilities_are_those_that_are_drawn_from() -> None:
    scores = np.array([1.0, 3.0, 2.0, -np.inf], np.float32)
    assert probabilities(scores, Sampling()).tolist() == [0, 1, 0, 0]
    half = probabilities(scores, Sampling(0.5, top_k=2))
    assert half[[0, 3]].tolist() == [0, 0]
    assert half[1] / half[2] == pytest.approx(np.exp(2.0))
    assert half.sum() == pytest.approx(1.0)


PROBABILITIES = st.lists(st.floats(0.01, 1), min_size=5, max_size=5).map(
    lambda weights: np.array(weights) / sum(weights)
)


def tally(p: np.ndarray, drafts: list[tuple[int, np.ndarray | None]], count: int = 3000) -> np.ndarray:
    found = [rejection_token(p, drafts, seed=5, position=i) for i in range(count)]
    return np.bincount(found, minlength=len(p)) / count


@given(PROBABILITIES, st.integers(0, 4), st.integers(0, 2**64 - 1), st.integers(0, 1000))
def test_a_draft_from_the_target_itself_always_stays(
    p: np.ndarray, token: int, seed: int, position: int
) -> None:
    assert rejection_token(p, [(token, p)], seed, position) == token


@given(PROBABILITIES, st.integers(0, 4), st.integers(0, 2**64 - 1), st.integers(0, 1000))
def test_a_token_the_target_excludes_never_stays(p: np.ndarray, token: int, seed: int, position: int) -> None:
    p = p.copy()
    p[token] = 0.0
    p /= p.sum()
    assert rejection_token(p, [(token, None)], seed, position) != token


def test_rates_are_those_of_the_rule() -> None:
    """Standard deviations of 3,000 draws are under 0.0092; five of them allowed."""
    p, q = np.array([0.5, 0.3, 0.2]), np.array([0.2, 0.2, 0.6])
    kept = 0.2 / 0.6
    assert np.abs(tally(p, [(2, q)]) - [(1 - kept) * 0.75, (1 - kept) * 0.25, kept]).max() < 0.046
    assert np.abs(tally(p, [(0, q)]) - [1, 0, 0]).max() < 0.046
    # Two choices without chance: 0.5 stays; of the rest, 0.3 / 0.5 stays.
    assert np.abs(tally(p, [(0, None), (1, None)]) - p).max() < 0.046
    assert np.abs(tally(p, []) - p).max() < 0.046


def test_siblings_without_replacement_leave_the_targets_distribution() -> None:
    """Two drafts from q, the second from what is left of it. 3,000 draws, five standard deviations."""
    p, q = np.array([0.5, 0.3, 0.2]), np.array([0.2, 0.2, 0.6])
    rng = np.random.default_rng(3)
    counts, independent = np.zeros(3), np.zeros(3)
    for position in range(3000):
        first = int(rng.choice(3, p=q))
        rest = np.where(np.arange(3) == first, 0.0, q)
        rest /= rest.sum()
        second = int(rng.choice(3, p=rest))
        counts[rejection_token(p, [(first, q), (second, rest)], 7, position)] += 1
        independent[rejection_token(p, [(first, q), (second, q)], 7, position)] += 1
    assert np.abs(counts / 3000 - p).max() < 0.046
    assert np.abs(independent / 3000 - p).max() > 0.046, "the test must tell the rule from its mistake"
