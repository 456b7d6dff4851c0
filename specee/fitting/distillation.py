"""Cross-entropy between two distributions that one frozen head gives, and its gradient, in one go.

Logits of some hundred rows over ten thousand tokens do not fit the caches, and plain autograd goes over them
a dozen times. Since the head is frozen, all that is wanted of a row is its loss and the gradient of its
state, so rows are done a few at a time and no logits are kept.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

_TOGETHER = 128  # rows: with 12 K tokens 6 MB of logits, for caches that are shared by two cores


def distilled(head: Tensor, wanted: Tensor, states: Seq[Tensor], counts: Seq[Tensor]) -> list[Tensor]:
    """For each of ``states`` the mean cross-entropy with what ``wanted`` gives.

    ``head`` (tokens, hidden), frozen, in the type that products are computed in; ``wanted`` and each of
    ``states`` (rows, hidden), fp32, normed; ``counts`` (rows,), bool: rows that count, for each of them.
    Gradients go to ``states`` alone. Without a row that counts a loss is 0.
    """
    with torch.autocast("cpu", enabled=False):  # it would sum in halves too
        losses: tuple[Tensor, ...] = _Distilled.apply(  # type: ignore[no-untyped-call]
            head, wanted, tuple(counts), *states
        )
    return list(losses)


class _Distilled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, head: Tensor, wanted: Tensor, counts: Seq[Tensor], *states: Tensor) -> Any:
        losses = [torch.zeros(()) for _ in states]
        slopes = [torch.empty_like(each) for each in states]
        shares = [each / each.sum().clamp(min=1) for each in counts]
        for begin in range(0, len(wanted), _TOGETHER):
            some = slice(begin, begin + _TOGETHER)
            right = torch.softmax(_logits(wanted[some], head), -1)
            for loss, slope, each, share in zip(losses, slopes, states, shares, strict=True):
                logits = _logits(each[some], head)
                whole = torch.logsumexp(logits, -1, keepdim=True)
                loss.add_(share[some] @ (whole[:, 0] - torch.linalg.vecdot(right, logits)))
                logits.sub_(whole).exp_().sub_(right).mul_(share[some, None])
                slope[some] = logits.to(head.dtype) @ head
        ctx.save_for_backward(*slopes)
        return tuple(losses)

    @staticmethod
    def backward(ctx: Any, *upper: Tensor) -> Any:
        return None, None, None, *[one * slope for one, slope in zip(upper, ctx.saved_tensors, strict=True)]


def _logits(states: Tensor, head: Tensor) -> Tensor:
    return functional.linear(states.to(head.dtype), head).float()
