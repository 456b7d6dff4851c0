"""Row-linear with int8 or int4 weights (layout in quantised.py).

    y[r, n] = sum_b scale[b, n] * (sum_j x[r, 32 b + j] q[b, n, j])

Integers are exact in every type of x, so the inner sum is a product of x as it is, accumulated in fp32;
blocks are then added in one fp32 chain, b rising. int4 multiplies a block's low halves, then its high ones on
top.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from . import checks, tiles
from .launch import launch
from .quantised import BLOCK, QuantisedMatrix, check_matrix


@triton.jit
def int8_kernel(
    x, values, scales, out, rows,
    N: tl.constexpr, K: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, UNROLL: tl.constexpr,
):  # fmt: skip
    """A tile of BLOCK_M rows and BLOCK_N outputs."""
    row = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    column = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    here, there = row < rows, column < N
    lane = tl.arange(0, 32)
    x_rows = x + row.to(tl.int64)[:, None] * K + lane[None, :]
    q_rows = values + column.to(tl.int64)[None, :] * 32 + lane[:, None]
    total = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    for first in range(0, K // 32, UNROLL):
        for more in tl.static_range(UNROLL):
            block = first + more
            a = tl.load(x_rows + block * 32, mask=here[:, None], other=0.0)
            q = tl.load(q_rows + block * (N * 32), mask=there[None, :], other=0)
            scale = tl.load(scales + block * N + column, mask=there, other=0.0).to(tl.float32)
            total += tl.dot(a, q.to(a.dtype), input_precision="ieee") * scale[None, :]
    tl.store(
        out + row.to(tl.int64)[:, None] * N + column[None, :], total, mask=here[:, None] & there[None, :]
    )


@triton.jit
def int4_kernel(
    x, values, scales, out, rows,
    N: tl.constexpr, K: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, UNROLL: tl.constexpr,
):  # fmt: skip
    """The same, a block's halves apart."""
    row = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    column = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    here, there = row < rows, column < N
    lane = tl.arange(0, 16)
    x_rows = x + row.to(tl.int64)[:, None] * K + lane[None, :]
    q_rows = values + column.to(tl.int64)[None, :] * 16 + lane[:, None]
    total = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    for first in range(0, K // 32, UNROLL):
        for more in tl.static_range(UNROLL):
            block = first + more
            low = tl.load(x_rows + block * 32, mask=here[:, None], other=0.0)
            high = tl.load(x_rows + block * 32 + 16, mask=here[:, None], other=0.0)
            q = tl.load(q_rows + block * (N * 16), mask=there[None, :], other=0)
            scale = tl.load(scales + block * N + column, mask=there, other=0.0).to(tl.float32)
            q_low, q_high = (q & 15).to(tl.int8) - 8, (q >> 4).to(tl.int8) - 8
            part = tl.dot(low, q_low.to(low.dtype), input_precision="ieee")
            part = tl.dot(high, q_high.to(low.dtype), part, input_precision="ieee")
            total += part * scale[None, :]
    tl.store(
        out + row.to(tl.int64)[:, None] * N + column[None, :], total, mask=here[:, None] & there[None, :]
    )


def row_linear_quantised(x: torch.Tensor, weight: QuantisedMatrix) -> torch.Tensor:
    """``x`` times the transpose of a quantised matrix.

    Args:
        x: (R, K) float, R 1 to 64; multiplied as it is.
        weight: (N, K) of 8 or 4 bits, from :func:`.quantised.quantise`.

    Returns:
        (R, N) float32.

    Raises:
        KernelArgumentError: a shape, dtype or device does not fit.
    """
    check_matrix(weight)
    outputs, k = weight.shape
    checks.size("weights of the matrix", outputs * k, 1, 2**31 - 1)  # offsets are 32 bits wide
    checks.tensor("x", x, (None, k), checks.FLOATS)
    rows = x.shape[0]
    checks.size("rows of x", rows, 1, checks.MAX_ROWS)
    checks.device(x=x, values=weight.values, scales=weight.scales)
    out = torch.empty((rows, outputs), dtype=torch.float32, device=x.device)
    tile = tiles.packed(x.dtype, k // BLOCK, outputs)
    grid = (triton.cdiv(rows, tile["BLOCK_M"]), triton.cdiv(outputs, tile["BLOCK_N"]))
    kernel = int8_kernel if weight.bits == 8 else int4_kernel
    launch(kernel, grid, x, weight.values, weight.scales, out, rows, N=outputs, K=k, **tile, stages=4)
    return out
