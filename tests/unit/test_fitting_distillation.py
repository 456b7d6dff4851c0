"""The loss and its gradient in one go are those of plain autograd."""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from specee.fitting import distillation
from specee.fitting.distillation import distilled

TOKENS, HIDDEN = 301, 24


def plain(head: Tensor, wanted: Tensor, states: Tensor, counts: Tensor) -> Tensor:
    right = torch.softmax(functional.linear(wanted[counts], head), -1)
    return -(right * torch.log_softmax(functional.linear(states[counts], head), -1)).sum(-1).mean()


def allowed(head: Tensor, wanted: Tensor, states: Tensor, counts: Tensor) -> Tensor:
    """How far the gradient of the loss may be off where both inputs of a product are rounded to bf16.

    A logit is then off by 2^-8 of the sum of absolute products at most, and a share of the softmax by twice
    the largest of these, relative to itself; what is multiplied by the head once more is rounded again.
    """
    shares = [torch.softmax(functional.linear(each, head), -1) for each in (states, wanted)]
    off = [2.0**-7 * functional.linear(each.abs(), head.abs()).amax(-1, True) for each in (states, wanted)]
    wrong = off[0] * shares[0] + off[1] * shares[1] + 2.0**-8 * (shares[0] - shares[1]).abs()
    return (wrong @ head.abs()) * counts[:, None] / counts.sum()


@pytest.fixture
def generator() -> torch.Generator:
    seed = random.randrange(2**32)
    print("seed", seed)
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("rows", [1, 5, 128, 300])
@pytest.mark.parametrize("precise", [True, False])
def test_as_plain_autograd(
    rows: int, precise: bool, generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    if rows == 5:
        monkeypatch.setattr(distillation, "_TOGETHER", 2)
    head = torch.randn(TOKENS, HIDDEN, generator=generator)
    wanted, *states = (torch.randn(rows, HIDDEN, generator=generator) for _ in range(3))
    counts = [torch.ones(rows, dtype=torch.bool), torch.rand(rows, generator=generator) < 0.7]
    counts[1][0] = True
    leaves = [[each.clone().requires_grad_() for each in states] for _ in range(2)]
    with torch.autocast("cpu", torch.bfloat16, enabled=not precise):
        kind = torch.float32 if precise else torch.bfloat16
        ours = distilled(head.to(kind), wanted, leaves[0], counts)
    theirs = [plain(head, wanted, each, count) for each, count in zip(leaves[1], counts, strict=True)]
    close = {"rtol": 1e-4, "atol": 1e-5} if precise else {"rtol": 0.05, "atol": 0.02}
    for one, other in zip(ours, theirs, strict=True):
        assert one.dtype == torch.float32
        torch.testing.assert_close(one, other, **close)
    (ours[0] + 0.3 * ours[1]).backward()
    (theirs[0] + 0.3 * theirs[1]).backward()
    for mine, right, count, share in zip(*leaves, counts, (1.0, 0.3), strict=True):
        assert mine.grad is not None
        assert right.grad is not None
        if precise:
            scale = right.grad.abs().max()
            torch.testing.assert_close(mine.grad / scale, right.grad / scale, **close)
        else:
            room = share * allowed(head, wanted, right.detach(), count)
            assert ((mine.grad - right.grad).abs() <= room).all()
            assert (right.grad.norm() > 2 * room.norm()) or rows < 128, "a bound that nothing could break"
    assert not leaves[0][1].grad[~counts[1]].any()  # type: ignore[index]


def test_a_guess_that_is_right_has_the_least_loss(generator: torch.Generator) -> None:
    head = torch.randn(TOKENS, HIDDEN, generator=generator)
    wanted = torch.randn(40, HIDDEN, generator=generator)
    everything = torch.ones(40, dtype=torch.bool)
    right = wanted.clone().requires_grad_()
    off = wanted + 0.1 * torch.randn(40, HIDDEN, generator=generator)
    least, more = distilled(head, wanted, [right, off], [everything, everything])
    assert 0 < least < more
    least.backward()
    assert right.grad is not None
    assert right.grad.abs().max() < 1e-5


def test_without_a_row_that_counts_there_is_nothing_to_learn(generator: torch.Generator) -> None:
    state = torch.randn(3, HIDDEN, generator=generator, requires_grad=True)
    head = torch.randn(TOKENS, HIDDEN, generator=generator)
    (loss,) = distilled(head, state.detach(), [state], [torch.zeros(3, dtype=torch.bool)])
    loss.backward()
    assert loss == 0
    assert state.grad is not None
    assert not state.grad.any()
