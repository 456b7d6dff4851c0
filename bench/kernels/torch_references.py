"""The operations of the Triton kernels once more in plain torch, in float64: what tests and benches compare
with.

Inputs are taken as they are stored, so that only the kernel's own arithmetic is in a difference.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

Tensor = torch.Tensor


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """(R, K) ``x / sqrt(mean(x^2) + eps) * weight`` (Zhang and Sennrich, 2019)."""
    wide = x.double()
    return wide / torch.sqrt((wide * wide).mean(-1, keepdim=True) + eps) * weight.double()


def candidate_logits(hidden: Tensor, norm: Tensor, head: Tensor, ids: Tensor, eps: float) -> Tensor:
    """Logits of ids (k,) or (R, k) for rows (R, hidden); -inf where an id is negative."""
    rows = head[ids.clamp(min=0).long()].double().expand(len(hidden), -1, -1)
    logits = torch.einsum("rh,rkh->rk", rms_norm(hidden, norm, eps), rows)
    return logits.masked_fill(ids.expand_as(logits) < 0, -torch.inf)


class Predicted(NamedTuple):
    """Of each row: logits, probabilities and the chance to leave."""

    logits: Tensor
    probabilities: Tensor
    chance: Tensor


def exit_chance(logits: Tensor, previous: Tensor | None, mlp: tuple[Tensor, ...]) -> Predicted:
    """The exit predictor from its candidates' logits (R, k) on; ``mlp`` is w1, b1, w2, b2."""
    w1, b1, w2, b2 = (weight.double() for weight in mlp)
    probabilities = torch.softmax(logits, -1)
    change = probabilities if previous is None else probabilities - previous.double()
    features = torch.cat([logits, probabilities, change], -1)
    return Predicted(logits, probabilities, torch.sigmoid(torch.relu(features @ w1.T + b1) @ w2 + b2))


def shadow(hidden: Tensor, norm: Tensor, head: Tensor, eps: float) -> Tensor:
    """(R, vocab) logits of states, inputs of the head rounded to its type as they are for any product."""
    return linear(rms_norm(hidden, norm, eps), head)


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """``y[r, n] = sum_k round(x[r, k]) weight[n, k]``: inputs are rounded to the type of the weights,
    once."""
    return x.to(weight.dtype).double() @ weight.double().T


def swiglu(gate_up: Tensor) -> Tensor:
    """(R, 2 inner) -> (R, inner): ``gate / (1 + exp(-gate)) * up`` (Shazeer, 2020)."""
    gate, up = gate_up.double().chunk(2, -1)
    return gate * torch.sigmoid(gate) * up


def rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """(R, heads, dim) rotated by halves, for the rows' cos and sin (R, dim / 2) (Su et al., 2021)."""
    first, second = x.double().chunk(2, -1)
    c, s = cos.double()[:, None], sin.double()[:, None]
    return torch.cat([first * c - second * s, second * c + first * s], -1)


def attention(q: Tensor, keys: Tensor, values: Tensor, slots: list[list[int]], scale: float) -> Tensor:
    """Row r sees the cache slots ``slots[r]``, in order. q (R, heads, dim), cache (slots, kv heads, dim)."""
    group = q.shape[1] // keys.shape[1]
    out = torch.empty(q.shape, dtype=torch.float64, device=q.device)
    for row, visible in enumerate(slots):
        k = keys[visible].double().repeat_interleave(group, 1)
        v = values[visible].double().repeat_interleave(group, 1)
        scores = torch.einsum("hd,lhd->hl", q[row].double(), k) * scale
        out[row] = torch.einsum("hl,lhd->hd", torch.softmax(scores, -1), v)
    return out
