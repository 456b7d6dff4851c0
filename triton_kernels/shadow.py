"""Shadow agreement: what each kept state would have drafted, how surely, and whether that was verified.

    l[r, v] = sum_k round(norm(h[r])[k]) E[v, k]
    token[r] = argmax_v l[r, v]        probability[r] = 1 / sum_v exp(l[r, v] - max)
    match[r] = (token[r] = verified[r])

(DEL, arXiv 2504.05598: all layers' states of a round through final norm and LM head.) No logit is stored: a
program goes through SPLIT tokens, tile by tile, with a running maximum, its first token and a running sum of
exponentials, as an online softmax does, and leaves three numbers a row; a second kernel puts those together
in order. Programs of the same tokens are next to each other, so that the head comes from memory once whatever
the number of states.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from . import checks
from .launch import launch
from .rms_norm import rms_norm

BLOCK_M, BLOCK_K, SPLIT = 64, 32, 1024
MAX_STATES = 1 << 20


class Agreement(NamedTuple):
    """token (R,) int32, lowest id among equals; probability (R,) float32; match (R,) bool."""

    token: torch.Tensor
    probability: torch.Tensor
    match: torch.Tensor


@triton.jit
def partial_kernel(
    states, head, tops, sums, tokens, rows, vocab,
    K: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_K: tl.constexpr, SPLIT: tl.constexpr,
):  # fmt: skip
    """BLOCK_M states and SPLIT tokens."""
    row = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    split = tl.program_id(1)
    here = row < rows
    state_rows = states + row.to(tl.int64)[:, None] * K
    top = tl.full([BLOCK_M], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    token = tl.zeros([BLOCK_M], tl.int32)
    begin = split * SPLIT
    for base in range(begin, tl.minimum(begin + SPLIT, vocab), BLOCK_V):
        column = base + tl.arange(0, BLOCK_V)
        there = column < vocab
        head_rows = head + column.to(tl.int64)[None, :] * K
        logits = tl.zeros([BLOCK_M, BLOCK_V], tl.float32)
        for start in range(0, K, BLOCK_K):
            k = start + tl.arange(0, BLOCK_K)
            a = tl.load(state_rows + k[None, :], mask=here[:, None] & (k < K)[None, :], other=0.0)
            b = tl.load(head_rows + k[:, None], mask=there[None, :] & (k < K)[:, None], other=0.0)
            logits = tl.dot(a, b, logits, input_precision="ieee")
        logits = tl.where(there[None, :], logits, float("-inf"))
        best = tl.max(logits, axis=1)
        first = tl.min(tl.where(logits == best[:, None], column[None, :], 2147483647), axis=1)
        token = tl.where(best > top, first, token)
        highest = tl.maximum(top, best)
        kept = tl.where(top == float("-inf"), 0.0, tl.exp(top - highest))
        added = tl.where(there[None, :], tl.exp(logits - highest[:, None]), 0.0)
        total = total * kept + tl.sum(added, axis=1)
        top = highest
    at = split.to(tl.int64) * rows + row
    tl.store(tops + at, top, mask=here)
    tl.store(sums + at, total, mask=here)
    tl.store(tokens + at, token, mask=here)


@triton.jit
def combine_kernel(
    tops, sums, tokens, verified, token_out, probability_out, match_out, rows, splits, BLOCK: tl.constexpr
):
    """BLOCK states: what the splits found, in order."""
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    here = row < rows
    top = tl.full([BLOCK], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK], tl.float32)
    token = tl.zeros([BLOCK], tl.int32)
    for split in range(splits):
        at = split * rows + row
        best = tl.load(tops + at, mask=here, other=0.0)
        highest = tl.maximum(top, best)
        kept = tl.where(top == float("-inf"), 0.0, tl.exp(top - highest))
        total = total * kept + tl.load(sums + at, mask=here, other=1.0) * tl.exp(best - highest)
        token = tl.where(best > top, tl.load(tokens + at, mask=here, other=0), token)
        top = highest
    tl.store(token_out + row, token, mask=here)
    tl.store(probability_out + row, 1.0 / total, mask=here)
    tl.store(match_out + row, token == tl.load(verified + row, mask=here, other=-1), mask=here)


def shadow_agreement(
    states: torch.Tensor, norm: torch.Tensor, head: torch.Tensor, verified: torch.Tensor, *, eps: float
) -> Agreement:
    """Draft, confidence and match of every state.

    Args:
        states: (R, hidden) float, outputs of any layers at any positions.
        norm: (hidden,) float, weight of the final RMSNorm.
        head: (vocab, hidden) float; normed states are rounded to its type.
        verified: (R,) int, the full model's token after each state; -1 for unknown, which matches nothing.
        eps: of the norm.

    Raises:
        KernelArgumentError: a shape, dtype or device does not fit.
    """
    checks.tensor("states", states, (None, None), checks.FLOATS)
    rows, k = states.shape
    checks.size("states", rows, 1, MAX_STATES)
    checks.tensor("norm", norm, (k,), checks.FLOATS)
    checks.tensor("head", head, (None, k), checks.FLOATS)
    checks.tensor("verified", verified, (rows,), checks.INTEGERS)
    checks.device(states=states, norm=norm, head=head, verified=verified)
    vocab, on = head.shape[0], head.device
    normed = rms_norm(states, norm, eps=eps, dtype=head.dtype)
    splits = triton.cdiv(vocab, SPLIT)
    partial = torch.empty((2, splits, rows), dtype=torch.float32, device=on)
    tokens = torch.empty((splits, rows), dtype=torch.int32, device=on)
    launch(
        partial_kernel, (triton.cdiv(rows, BLOCK_M), splits), normed, head, *partial, tokens,
        rows, vocab, K=k, BLOCK_M=BLOCK_M, BLOCK_K=BLOCK_K, SPLIT=SPLIT,
        BLOCK_V=64 if head.dtype == torch.float32 else 128, warps=8, stages=4,
    )  # fmt: skip
    found = Agreement(
        torch.empty(rows, dtype=torch.int32, device=on),
        torch.empty(rows, dtype=torch.float32, device=on),
        torch.empty(rows, dtype=torch.bool, device=on),
    )
    launch(
        combine_kernel, (triton.cdiv(rows, 32),), *partial, tokens, verified, *found,
        rows, splits, BLOCK=32, warps=1,
    )  # fmt: skip
    return found
