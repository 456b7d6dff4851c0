"""Noise, drawn tokens, and walks down trees of drafts, against specee's own in Python."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from specee import acceptance, sampling
from specee.errors import KernelArgumentError
from specee.triton_kernels.acceptance import accept
from specee.triton_kernels.drawing import draw_tokens
from specee.triton_kernels.noise import uniforms
from specee.types import Sampling

SEEDS = [0, 1, 2**31, 2**32 + 5, 2**63 - 1, 2**64 - 1, 0xDEADBEEFCAFEF00D]
POSITIONS = [0, 7, 2**31, 2**32 - 1, 2**32, 2**40 + 3, 12]


def signed(values: list[int]) -> torch.Tensor:
    """The same 64 bits."""
    return torch.from_numpy(np.array(values, np.uint64).view(np.int64))


def test_uniforms_have_the_bits_of_the_reference(device: str) -> None:
    count = 1030
    found = uniforms(signed(SEEDS).to(device), signed(POSITIONS).to(device), count).cpu().numpy()
    for row, (seed, position) in enumerate(zip(SEEDS, POSITIONS, strict=True)):
        np.testing.assert_array_equal(found[row], sampling.uniforms(seed, position, np.arange(count)))
    assert len(np.unique(found)) == found.size


@pytest.mark.parametrize("vocab", [3, 512, 5000])
def test_tokens_are_those_of_plain_sampling(device: str, seed: int, vocab: int) -> None:
    rng = np.random.default_rng(seed)
    rows = len(SEEDS)
    logits = rng.standard_normal((rows, vocab)).astype(np.float32) * 3
    logits[:, rng.integers(0, vocab, vocab // 10)] = -np.inf
    logits[:, 1] = 5.0
    temperatures = [0.0, 0.8, 1.0, 0.1, 2.5, 0.0, 0.7]
    drawn = draw_tokens(
        torch.from_numpy(logits).to(device),
        torch.tensor(temperatures, dtype=torch.float64, device=device),
        signed(SEEDS).to(device),
        signed(POSITIONS).to(device),
    ).tolist()
    expected = [
        sampling.sample(logits[row], Sampling(temperature=heat, seed=SEEDS[row]), POSITIONS[row])
        for row, heat in enumerate(temperatures)
    ]
    assert drawn == expected
    greedy = draw_tokens(torch.from_numpy(logits).to(device)).tolist()
    assert greedy == logits.argmax(1).tolist()
    assert vocab < 500 or greedy != drawn


def test_the_lowest_id_wins_among_equals(device: str) -> None:
    logits = torch.zeros(2, 9000, device=device)
    logits[0, [8000, 4500, 4097]] = 1.0
    assert draw_tokens(logits).tolist() == [4097, 0]


def test_a_draw_does_not_depend_on_the_rows_beside_it(device: str, seed: int) -> None:
    logits = torch.randn(5, 700, generator=torch.Generator().manual_seed(seed)).to(device)
    heat = torch.full((5,), 1.5, dtype=torch.float64, device=device)
    seeds, positions = (torch.arange(5, device=device) + shift for shift in (3, 40))
    together = draw_tokens(logits, heat, seeds, positions)
    logits[:4] = torch.nan
    assert draw_tokens(logits, heat, seeds, positions)[4] == together[4]
    alone = draw_tokens(logits[4:], heat[4:], seeds[4:], positions[4:])
    assert alone[0] == together[4]


def random_tree(rng: np.random.Generator, nodes: int, width: int) -> tuple[list[int], list[int], list[int]]:
    """Tokens, parents and the full model's tokens; few different tokens, so that walks go deep."""
    tokens, parents = [int(rng.integers(width))], [-1]
    for node in range(1, nodes):
        parent = int(rng.integers(max(0, node - 3), node))
        taken = {t for t, p in zip(tokens, parents, strict=True) if p == parent}
        left = [token for token in range(width + 3) if token not in taken]
        tokens.append(int(rng.choice(left)))
        parents.append(parent)
    targets = []
    for node in range(nodes):
        children = [t for t, p in zip(tokens, parents, strict=True) if p == node]
        targets.append(
            int(rng.choice(children)) if children and rng.random() < 0.8 else int(rng.integers(width))
        )
    return tokens, parents, targets


class Children:
    """A tree as specee's walk wants it."""

    def __init__(self, tokens: list[int], parents: list[int]) -> None:
        self.by_edge = {(p, t): n for n, (t, p) in enumerate(zip(tokens, parents, strict=True)) if n}

    def child(self, node: int, token: int) -> int | None:
        return self.by_edge.get((node, token))


@pytest.mark.parametrize(("nodes", "trees"), [(1, 2), (13, 20), (33, 6)])
def test_walks_are_those_of_plain_acceptance(device: str, seed: int, nodes: int, trees: int) -> None:
    rng = np.random.default_rng(seed)
    drafts, parents, targets = (torch.full((trees, nodes), -7, dtype=torch.int32) for _ in range(3))
    counts = torch.from_numpy(rng.integers(1, nodes + 1, trees).astype(np.int32))
    expected = []
    for tree in range(trees):
        count = int(counts[tree])
        tokens, before, target = random_tree(rng, count, 3)
        for into, made in ((drafts, tokens), (parents, before), (targets, target)):
            into[tree, :count] = torch.tensor(made)
        # What comes after the tree would be walked into, were it not left alone.
        drafts[tree, count:], parents[tree, count:] = target[0], 0
        expected.append(acceptance.walk(Children(tokens, before), target.__getitem__, lambda _: None))
    found = accept(*(value.to(device) for value in (drafts, parents, targets, counts)))
    for tree, walked in enumerate(expected):
        accepted = int(found.accepted[tree])
        assert accepted == len(walked.path)
        assert found.path[tree].tolist() == [*walked.path, *[-1] * (nodes - accepted)]
        assert found.tokens[tree].tolist() == [*walked.tokens, *[-1] * (nodes - accepted - 1)]
    assert nodes == 1 or max(len(walked.path) for walked in expected) > 1


def test_what_does_not_fit_is_refused(device: str) -> None:
    logits = torch.zeros(2, 10, device=device)
    with pytest.raises(KernelArgumentError, match="seeds is None"):
        draw_tokens(logits, torch.zeros(2, dtype=torch.float64, device=device))
    with pytest.raises(KernelArgumentError, match=r"logits is torch\.float16"):
        draw_tokens(logits.half())
    nodes = torch.zeros(1, 257, dtype=torch.int32, device=device)
    with pytest.raises(KernelArgumentError, match="nodes of a tree is 257"):
        accept(nodes, nodes, nodes, nodes[:, 0])
