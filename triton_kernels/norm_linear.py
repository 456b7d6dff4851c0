"""RMSNorm and row-linear in one launch.

    y[r, n] = sum_k round(x[r, k] g[k] / sqrt(mean_k x[r, k]^2 + eps)) W[n, k]

round() is to the type of W. Each program takes the sums of squares of its rows once more: they are in the L2
cache, and cheaper to read than a second launch is to wait for. Products as in row_linear.py.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from . import checks, tiles
from .launch import launch


@triton.jit
def norm_linear_kernel(
    x, norm, weight, out, rows, eps,
    N: tl.constexpr, K: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """A tile of BLOCK_M rows and BLOCK_N outputs."""
    row = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    column = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    here, there = row < rows, column < N
    x_rows = x + row.to(tl.int64)[:, None] * K
    w_rows = weight + column.to(tl.int64)[None, :] * K
    squares = tl.zeros([BLOCK_M, BLOCK_K], tl.float32)
    for start in range(0, K, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        a = tl.load(x_rows + k[None, :], mask=here[:, None] & (k < K)[None, :], other=0.0).to(tl.float32)
        squares += a * a
    scale = 1.0 / tl.sqrt_rn(tl.sum(squares, axis=1) / K + eps)
    total = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    for start in range(0, K, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        inside = k < K
        a = tl.load(x_rows + k[None, :], mask=here[:, None] & inside[None, :], other=0.0).to(tl.float32)
        g = tl.load(norm + k, mask=inside, other=0.0).to(tl.float32)
        b = tl.load(w_rows + k[:, None], mask=there[None, :] & inside[:, None], other=0.0)
        a = a * scale[:, None] * g[None, :]
        total = tl.dot(a.to(b.dtype), b, total, input_precision="ieee")
    tl.store(
        out + row.to(tl.int64)[:, None] * N + column[None, :], total, mask=here[:, None] & there[None, :]
    )


def norm_linear(x: torch.Tensor, norm: torch.Tensor, weight: torch.Tensor, *, eps: float) -> torch.Tensor:
    """RMSNorm of ``x``, times the transpose of ``weight``.

    Args:
        x: (R, K) float, R 1 to 64.
        norm: (K,) float, weight of the norm.
        weight: (N, K) float32, float16 or bfloat16.
        eps: of the norm.

    Returns:
        (R, N) float32.

    Raises:
        KernelArgumentError: a shape, dtype or device does not fit.
    """
    checks.tensor("x", x, (None, None), checks.FLOATS)
    rows, k = x.shape
    checks.size("rows of x", rows, 1, checks.MAX_ROWS)
    checks.tensor("norm", norm, (k,), checks.FLOATS)
    checks.tensor("weight", weight, (None, k), checks.FLOATS)
    checks.device(x=x, norm=norm, weight=weight)
    outputs = weight.shape[0]
    out = torch.empty((rows, outputs), dtype=torch.float32, device=x.device)
    tile = tiles.dense(weight.dtype, outputs)
    grid = (triton.cdiv(rows, tile["BLOCK_M"]), triton.cdiv(outputs, tile["BLOCK_N"]))
    launch(norm_linear_kernel, grid, x, norm, weight, out, rows, eps, N=outputs, K=k, **tile, stages=3)
    return out
