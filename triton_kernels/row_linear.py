"""Row-linear: a few rows times a matrix of fp32, fp16 or bf16 weights.

    y[r, n] = sum_k round(x[r, k]) W[n, k]

round() is to the type of W, once. Sums are fp32, one chain over tiles of k in rising order; within a tile the
tensor core's own order (fp32 weights: one fma a k). Decoding reads W once and computes little, so a program
streams BLOCK_N rows of it.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from . import checks, tiles
from .launch import launch


@triton.jit
def row_linear_kernel(
    x, weight, out, rows,
    N: tl.constexpr, K: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """A tile of BLOCK_M rows and BLOCK_N outputs."""
    row = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    column = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    here, there = row < rows, column < N
    x_rows = x + row.to(tl.int64)[:, None] * K
    w_rows = weight + column.to(tl.int64)[None, :] * K
    total = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    for start in range(0, K, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        inside = k < K
        a = tl.load(x_rows + k[None, :], mask=here[:, None] & inside[None, :], other=0.0)
        b = tl.load(w_rows + k[:, None], mask=there[None, :] & inside[:, None], other=0.0)
        total = tl.dot(a.to(b.dtype), b, total, input_precision="ieee")
    tl.store(
        out + row.to(tl.int64)[:, None] * N + column[None, :], total, mask=here[:, None] & there[None, :]
    )


def row_linear(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """``x`` times the transpose of ``weight``.

    Args:
        x: (R, K) float, R 1 to 64.
        weight: (N, K) float32, float16 or bfloat16.

    Returns:
        (R, N) float32.

    Raises:
        KernelArgumentError: a shape, dtype or device does not fit.
    """
    checks.tensor("x", x, (None, None), checks.FLOATS)
    rows, k = x.shape
    checks.size("rows of x", rows, 1, checks.MAX_ROWS)
    checks.tensor("weight", weight, (None, k), checks.FLOATS)
    checks.device(x=x, weight=weight)
    outputs = weight.shape[0]
    out = torch.empty((rows, outputs), dtype=torch.float32, device=x.device)
    tile = tiles.dense(weight.dtype, outputs)
    grid = (triton.cdiv(rows, tile["BLOCK_M"]), triton.cdiv(outputs, tile["BLOCK_N"]))
    launch(row_linear_kernel, grid, x, weight, out, rows, N=outputs, K=k, **tile, stages=4)
    return out
