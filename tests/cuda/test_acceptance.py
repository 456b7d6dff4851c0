"""Target tokens, acceptance and compaction against specee's own plain versions."""

from __future__ import annotations

import numpy as np
import pytest

from specee import sampling
from specee.acceptance import walk
from specee.cuda import acceptance as op
from specee.cuda.tiles import vocab_splits
from specee.errors import ConfigurationError
from specee.types import Sampling
from tests.cuda.devices import Device


def pieces_of(
    device: Device, logits: np.ndarray, temperatures: list[float], seeds: list[int], positions: list[int]
) -> op.Pieces:
    rows, vocab = logits.shape
    put = device.put
    out = op.Pieces(
        put(np.full((rows, vocab_splits(vocab)), np.nan)),
        put(np.full((rows, vocab_splits(vocab)), -9, np.int32)),
    )
    draws = op.Draws(
        put(np.array(temperatures, np.float64)),
        put(np.array(seeds, np.uint64).view(np.int64)),
        put(np.array(positions, np.int64)),
    )
    op.target_pieces(device.launcher, put(logits), draws, out)
    return out


def accepted_of(
    device: Device, pieces: op.Pieces, tokens: list[int], parents: list[int], firsts: list[int]
) -> tuple[op.Drafts, op.Accepted]:
    put = device.put
    rows, sequences = len(tokens), len(firsts) - 1
    drafts = op.Drafts(*(put(np.array(values, np.int32)) for values in (tokens, parents, firsts)))
    out = op.Accepted(*(put(np.full(size, -9, np.int32)) for size in (rows, rows, sequences, sequences)))
    op.accept(device.launcher, pieces, drafts, out)
    return drafts, out


def targets_of(
    device: Device, logits: np.ndarray, temperatures: list[float], seeds: list[int], positions: list[int]
) -> np.ndarray:
    """Targets of rows without drafts, each a sequence of its own."""
    rows = len(logits)
    pieces = pieces_of(device, logits, temperatures, seeds, positions)
    none = [-1] * rows
    _, out = accepted_of(device, pieces, none, none, list(range(rows + 1)))
    targets = device.get(out.targets)
    np.testing.assert_array_equal(device.get(out.next_tokens), targets)
    np.testing.assert_array_equal(device.get(out.counts), np.zeros(rows))
    return targets


@pytest.mark.parametrize("vocab", [3, 4096, 10_000])
def test_targets_are_the_tokens_of_plain_decoding(
    device: Device, rng: np.random.Generator, vocab: int
) -> None:
    rows = 6
    logits = (4 * rng.standard_normal((rows, vocab))).astype(np.float32)
    logits[1, rng.permutation(vocab)[: vocab // 2]] = -np.inf  # as filters leave them
    temperatures = [0.0, 0.7, 1.0, 3.0, 0.0, 0.05]
    seeds = [int(rng.integers(2**63)) * 2 + 1 for _ in range(rows)]
    positions = [int(rng.integers(2**40)) for _ in range(rows)]
    targets = targets_of(device, logits, temperatures, seeds, positions)
    for row in range(rows):
        scores, noise = logits[row].astype(np.float64), np.zeros(vocab)
        if temperatures[row]:
            scores = scores / temperatures[row]
            noise = sampling.gumbel(seeds[row], positions[row], np.arange(vocab))
        assert targets[row] == np.argmax(scores + noise), f"row {row}"
        if row != 1:
            drawn = sampling.sample(
                logits[row], Sampling(temperature=temperatures[row], seed=seeds[row]), positions[row]
            )
            assert targets[row] == drawn


def test_other_noise_gives_other_tokens(device: Device, rng: np.random.Generator) -> None:
    """The negative control: seed and position matter, and rows beside do not."""
    logits = np.tile(rng.standard_normal(5000).astype(np.float32), (8, 1))
    same = targets_of(device, logits, [1.0] * 8, [5] * 8, [9] * 8)
    assert len(set(same)) == 1
    assert len(set(targets_of(device, logits, [1.0] * 8, list(range(8)), [9] * 8))) > 4
    assert len(set(targets_of(device, logits, [1.0] * 8, [5] * 8, list(range(8))))) > 4


def test_ties_go_to_the_lower_token_across_pieces(device: Device) -> None:
    logits = np.zeros((3, 9000), np.float32)
    logits[1, [8999, 4500, 77]] = 2.0
    logits[2, [4096, 4095]] = 1.0
    assert list(targets_of(device, logits, [0.0] * 3, [0] * 3, [0] * 3)) == [0, 77, 4095]


def test_unsound_logits_are_told_of(device: Device) -> None:
    logits = np.zeros((4, 5000), np.float32)
    logits[0, 4999], logits[1] = np.nan, -np.inf
    logits[2, 3] = np.inf
    expected = [op.UNSOUND, op.NO_TOKEN, 3]
    for temperature in (0.0, 1.0):
        targets = targets_of(device, logits, [temperature] * 4, [1] * 4, [2] * 4)
        assert list(targets[:3]) == expected
        assert targets[3] >= 0


class Tree:
    """One sequence's drafts as :func:`specee.acceptance.walk` sees them."""

    def __init__(self, tokens: list[int], parents: list[int]) -> None:
        self.tokens, self.parents = tokens, parents

    def child(self, node: int, token: int) -> int | None:
        rows = range(1, len(self.tokens))
        return next((r for r in rows if self.parents[r] == node and self.tokens[r] == token), None)


def random_tree(rng: np.random.Generator, vocab: int) -> Tree:
    rows = int(rng.integers(1, 24))
    parents = [-1, *(int(rng.integers(max(0, r - 4), r)) for r in range(1, rows))]
    return Tree(rng.integers(0, vocab, rows).tolist(), parents)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_walks_are_those_of_the_plain_version(
    device: Device, rng: np.random.Generator, temperature: float
) -> None:
    vocab, trees = 5, [random_tree(rng, 5) for _ in range(4)]
    firsts = np.cumsum([0, *(len(tree.tokens) for tree in trees)]).tolist()
    rows = firsts[-1]
    logits = rng.standard_normal((rows, vocab)).astype(np.float32)
    # Some first drafts that do match, so that walks are not all short.
    pieces = pieces_of(device, logits, [temperature] * rows, [3] * rows, list(range(rows)))
    targets = device.get(pieces.tokens)[:, 0]
    for tree, first in zip(trees, firsts, strict=False):
        for row in range(1, len(tree.tokens)):
            if rng.random() < 0.6:
                tree.tokens[row] = int(targets[first + tree.parents[row]])
    tokens = [token for tree in trees for token in tree.tokens]
    pairs = zip(trees, firsts, strict=False)
    parents = [p + first if p >= 0 else -1 for tree, first in pairs for p in tree.parents]
    _, out = accepted_of(device, pieces, tokens, parents, firsts)
    counts, path, following = (device.get(a) for a in (out.counts, out.path, out.next_tokens))
    for i, (tree, first) in enumerate(zip(trees, firsts, strict=False)):
        expected = walk(tree, lambda node, first=first: int(targets[first + node]), lambda _: None)
        assert counts[i] == len(expected.path)
        nodes = [first, *(first + node for node in expected.path)]
        assert path[first : first + len(nodes)].tolist() == nodes
        assert following[i] == expected.tokens[-1]
    assert counts.max() > 0


def test_compaction_moves_accepted_drafts_in_order(device: Device, rng: np.random.Generator) -> None:
    """Three sequences: moves that overlap, drafts that are where they belong already, nothing accepted."""
    layers, number, width = 3, 60, 24
    keys = rng.integers(0, 2**16, (layers, number, width)).astype(np.uint16)
    values = rng.integers(0, 2**16, (layers, number, width)).astype(np.uint16)
    firsts, counts = [0, 6, 10, 13], [4, 3, 0]
    slots = [9, 10, 11, 12, 13, 15, 29, 30, 31, 32, 50, 51, 52]
    path = [0, 2, 3, 4, 5, -9, 6, 7, 8, 9, 10, -9, -9]
    destinations = [10, 30, 51]
    put = device.put
    there = [put(keys), put(values)]
    ints = {
        name: put(np.array(values_, np.int32))
        for name, values_ in (("slots", slots), ("firsts", firsts), ("path", path), ("counts", counts))
    }
    unused = put(np.zeros(13, np.int32))
    op.compact_cache(
        device.launcher,
        *there,
        ints["slots"],
        op.Drafts(unused, unused, ints["firsts"]),
        op.Accepted(unused, ints["path"], ints["counts"], unused),
        put(np.array(destinations, np.int32)),
    )
    for before, after in zip((keys, values), map(device.get, there), strict=True):
        expected = before.copy()
        for i, destination in enumerate(destinations):
            moved = [slots[path[firsts[i] + 1 + j]] for j in range(counts[i])]
            expected[:, destination : destination + counts[i]] = before[:, moved]
        np.testing.assert_array_equal(after, expected)
        assert (expected != before).any()


def test_impossible_shapes_are_refused(device: Device) -> None:
    pieces = op.Pieces(device.put(np.zeros((1025, 1))), device.put(np.zeros((1025, 1), np.int32)))
    with pytest.raises(ConfigurationError, match=r"1025 rows in one acceptance: allowed are up to 1024"):
        accepted_of(device, pieces, [0] * 1025, [-1] * 1025, [0, 1025])
    odd = device.put(np.zeros((1, 4, 12), np.uint16))
    none = device.put(np.zeros(1, np.int32))
    with pytest.raises(ConfigurationError, match="multiples of 8"):
        op.compact_cache(device.launcher, odd, odd, none, op.Drafts(none, none, none), None, none)
