"""Merged candidate scoring: final norm and LM head for a few candidate tokens alone, shared by all rows.

    logit[r, j] = sum_i h[r, i] g[i] E[id[j], i] / sqrt(mean_i h[r, i]^2 + eps)

h are hidden states, g the weight of the final RMSNorm, E the rows of the LM head (SpecEE, arXiv 2504.08850,
section 4: the candidates' slice of the head). One program a row: sum of squares and products are taken in one
pass, and the norm is a factor of the result. Everything is widened to fp32, nothing is rounded on the way.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from . import checks
from .launch import launch


@triton.jit
def candidate_logits(
    hidden, norm, head, ids, valid, eps,
    SIZE: tl.constexpr, BLOCK: tl.constexpr, PADDED: tl.constexpr,
):  # fmt: skip
    """(PADDED,) fp32 logits of one row, zero where not ``valid``; heads' rows of those are not read."""
    squares = tl.zeros([BLOCK], tl.float32)
    products = tl.zeros([PADDED, BLOCK], tl.float32)
    rows = head + ids.to(tl.int64)[:, None] * SIZE
    for start in tl.range(0, SIZE, BLOCK, loop_unroll_factor=4):
        columns = start + tl.arange(0, BLOCK)
        inside = columns < SIZE
        x = tl.load(hidden + columns, mask=inside, other=0.0).to(tl.float32)
        g = tl.load(norm + columns, mask=inside, other=0.0).to(tl.float32)
        w = tl.load(rows + columns[None, :], mask=valid[:, None] & inside[None, :], other=0.0)
        squares += x * x
        products += (x * g)[None, :] * w.to(tl.float32)
    scale = 1.0 / tl.sqrt_rn(tl.sum(squares, axis=0) / SIZE + eps)
    return tl.sum(products, axis=1) * scale


@triton.jit
def score_kernel(
    hidden, norm, head, ids, out, eps,
    COUNT: tl.constexpr, ROW_IDS: tl.constexpr,
    SIZE: tl.constexpr, BLOCK: tl.constexpr, PADDED: tl.constexpr,
):  # fmt: skip
    """``ROW_IDS``: whether each row has ids of its own, where a negative one is no candidate."""
    row = tl.program_id(0).to(tl.int64)
    lane = tl.arange(0, PADDED)
    inside = lane < COUNT
    first = row * COUNT if ROW_IDS else 0
    token = tl.load(ids + first + lane, mask=inside, other=-1)
    valid = token >= 0
    score = candidate_logits(hidden + row * SIZE, norm, head, token, valid, eps, SIZE, BLOCK, PADDED)
    tl.store(out + row * COUNT + lane, tl.where(valid, score, float("-inf")), mask=inside)


def blocks(count: int) -> dict[str, int]:
    """Tile of ``count`` candidates: as many products in registers whatever their number."""
    padded = triton.next_power_of_2(count)
    return {"PADDED": padded, "BLOCK": min(1024, 4096 // padded)}


def check_head(hidden: torch.Tensor, norm: torch.Tensor, head: torch.Tensor) -> None:
    """Shapes (R, hidden), (hidden,) and (vocab, hidden), and dtypes."""
    checks.tensor("hidden", hidden, (None, None), checks.FLOATS)
    checks.tensor("norm", norm, (hidden.shape[1],), checks.FLOATS)
    checks.tensor("head", head, (None, hidden.shape[1]), checks.FLOATS)


def score_candidates(
    hidden: torch.Tensor, norm: torch.Tensor, head: torch.Tensor, ids: torch.Tensor, *, eps: float
) -> torch.Tensor:
    """Logits of the candidates ``ids`` for every row.

    Args:
        hidden: (R, hidden) float, R 1 to 64: outputs of a layer.
        norm: (hidden,) float, weight of the final RMSNorm.
        head: (vocab, hidden) float, the LM head.
        ids: (k,) int, k 1 to 16: token ids below ``vocab`` (not checked: they are on the device).
        eps: of the norm.

    Returns:
        (R, k) float32.

    Raises:
        KernelArgumentError: a shape, dtype or device does not fit.
    """
    check_head(hidden, norm, head)
    checks.tensor("ids", ids, (None,), checks.INTEGERS)
    checks.size("rows of hidden", hidden.shape[0], 1, checks.MAX_ROWS)
    checks.size("candidates", ids.shape[0], 1, checks.MAX_CANDIDATES)
    checks.device(hidden=hidden, norm=norm, head=head, ids=ids)
    rows, count = hidden.shape[0], ids.shape[0]
    out = torch.empty((rows, count), dtype=torch.float32, device=hidden.device)
    launch(
        score_kernel, (rows,), hidden, norm, head, ids, out, eps,
        COUNT=count, ROW_IDS=False, SIZE=hidden.shape[1], **blocks(count), warps=8,
    )  # fmt: skip
    return out
