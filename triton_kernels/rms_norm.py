"""RMSNorm of rows.

    y[r, k] = x[r, k] g[k] / sqrt(mean_k x[r, k]^2 + eps)

(Zhang and Sennrich, 2019.) fp32 within; y is rounded once, to the type that the product after it takes.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from . import checks
from .launch import launch


@triton.jit
def rms_norm_kernel(x, weight, out, eps, SIZE: tl.constexpr, BLOCK: tl.constexpr):
    """One row."""
    row = tl.program_id(0).to(tl.int64)
    squares = tl.zeros([BLOCK], tl.float32)
    for start in range(0, SIZE, BLOCK):
        k = start + tl.arange(0, BLOCK)
        value = tl.load(x + row * SIZE + k, mask=k < SIZE, other=0.0).to(tl.float32)
        squares += value * value
    scale = 1.0 / tl.sqrt_rn(tl.sum(squares, axis=0) / SIZE + eps)
    for start in range(0, SIZE, BLOCK):
        k = start + tl.arange(0, BLOCK)
        value = tl.load(x + row * SIZE + k, mask=k < SIZE, other=0.0).to(tl.float32)
        g = tl.load(weight + k, mask=k < SIZE, other=0.0).to(tl.float32)
        tl.store(out + row * SIZE + k, value * scale * g, mask=k < SIZE)


def rms_norm(x: torch.Tensor, weight: torch.Tensor, *, eps: float, dtype: torch.dtype) -> torch.Tensor:
    """Normalised rows.

    Args:
        x: (R, K) float, any number of rows.
        weight: (K,) float.
        eps: of the norm.
        dtype: float32, float16 or bfloat16, of the result.

    Returns:
        (R, K) of that dtype.

    Raises:
        KernelArgumentError: a shape, dtype or device does not fit.
    """
    checks.tensor("x", x, (None, None), checks.FLOATS)
    checks.tensor("weight", weight, (x.shape[1],), checks.FLOATS)
    out = torch.empty(x.shape, dtype=dtype, device=x.device)
    checks.tensor("result", out, x.shape, checks.FLOATS)
    checks.device(x=x, weight=weight, result=out)
    launch(rms_norm_kernel, (len(x),), x, weight, out, eps, SIZE=x.shape[1], BLOCK=1024, warps=4)
    return out
