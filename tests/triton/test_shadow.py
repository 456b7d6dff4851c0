"""Shadow agreement: argmax, confidence and match without logits."""

from __future__ import annotations

import pytest
import torch

from specee.bench.kernels import torch_references as reference
from specee.errors import KernelArgumentError
from specee.triton_kernels.shadow import Agreement, shadow_agreement
from tests.triton import bounds
from tests.triton.bounds import assert_within
from tests.triton.shapes import drawn

EPS = 1e-5

Tensor = torch.Tensor


def random_case(
    seed: int, device: str, dtype: torch.dtype, rows: int, size: int, vocab: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """States, norm, head and verified tokens; memory after states and head is NaN."""
    made = torch.Generator().manual_seed(seed)
    states, head = torch.full((rows + 64, size), torch.nan), torch.full((vocab + 128, size), torch.nan)
    states[:rows] = torch.randn(rows, size, generator=made)
    head[:vocab] = 3 * torch.randn(vocab, size, generator=made) / size**0.5
    norm = 1 + 0.2 * torch.randn(size, generator=made)
    head, norm = head.to(device, dtype)[:vocab], norm.to(device, dtype)
    states = states.to(device)[:rows]
    best = reference.shadow(states, norm, head, EPS).argmax(1)
    verified = torch.where(torch.arange(rows, device=device) % 3 == 0, (best + 1) % vocab, best)
    verified[-1] = -1
    return states, norm, head, verified


def run(case: tuple[Tensor, ...]) -> Agreement:
    return shadow_agreement(*case, eps=EPS)


@pytest.mark.parametrize("shape", [(1, 32, 100), (5, 96, 1030), (70, 40, 1100), None])
def test_against_the_reference(
    device: str, seed: int, dtype: torch.dtype, shape: tuple[int, int, int] | None
) -> None:
    rows, size, vocab = shape or drawn(seed, (1, 64), (8, 130), (20, 1300))
    case = random_case(seed, device, dtype, rows, size, vocab)
    states, norm, head, verified = case
    found = run(case)
    normed = reference.rms_norm(states, norm, EPS)
    logits = reference.shadow(states, norm, head, EPS)
    # Where an input is off by rounding, it may be the type's other neighbour.
    off = (bounds.relative_norm(size) + 2 * bounds.ROUNDING[dtype]) * normed.abs() + bounds.SMALLEST[dtype]
    error = (bounds.products(normed, head, size) + off @ head.double().abs().T).amax(1)
    chosen = logits.gather(1, found.token.long()[:, None])[:, 0]
    assert (chosen >= logits.amax(1) - 2 * error).all()
    probability = torch.softmax(logits, 1).amax(1)
    sums = (2 * bounds.EXP + bounds.LAMBDA * vocab**0.5 + 20) * bounds.UNIT
    assert_within(found.probability, probability, probability * (2.1 * error + sums))
    assert torch.equal(found.match, found.token == verified)
    clear = logits.topk(2, 1).values.diff(dim=1)[:, 0].abs() > 2 * error
    assert torch.equal(found.token[clear].long(), logits.argmax(1)[clear])
    assert clear.float().mean() > 0.5
    with pytest.raises(AssertionError, match="rounding"):
        assert_within(run((states, norm * 1.1, head, verified)).probability, probability, probability * sums)


def test_the_lowest_token_wins_among_equals(device: str, seed: int) -> None:
    states, norm, head, verified = random_case(seed, device, torch.float32, 3, 32, 2500)
    winner = (states / states.norm(dim=1, keepdim=True)).sum(0) * 50
    for token in (2400, 1500, 70, 71):  # in three splits, and twice in one tile
        head[token] = winner
    assert run((states, norm.abs() * 0 + 1, head, verified)).token.tolist() == [70] * 3


def test_a_state_alone_has_the_bits_of_one_among_others(device: str, seed: int) -> None:
    states, norm, head, verified = random_case(seed, device, torch.float16, 67, 48, 1100)
    together = run((states, norm, head, verified))
    for row in (0, 13, 63, 64, 66):
        one = slice(row, row + 1)
        alone = run((states[one], norm, head, verified[one]))
        assert all(torch.equal(mine[0], theirs[row]) for mine, theirs in zip(alone, together, strict=True))
    poisoned = torch.full_like(states, torch.nan)
    poisoned[9] = states[9]
    beside = run((poisoned, norm, head, verified))
    assert all(torch.equal(mine[9], theirs[9]) for mine, theirs in zip(beside, together, strict=True))


def test_what_does_not_fit_is_refused(device: str) -> None:
    states, norm, head, verified = random_case(1, device, torch.float32, 3, 32, 100)
    with pytest.raises(KernelArgumentError, match=r"verified has shape \(2,\): allowed is \(3\)"):
        run((states, norm, head, verified[:2]))
    with pytest.raises(KernelArgumentError, match="head has shape"):
        run((states, norm, head[:, :16].contiguous(), verified))
