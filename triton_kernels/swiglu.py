"""SwiGLU of a fused gate and up product.

    y[r, i] = s(G[r, i]) U[r, i],  s(z) = z / (1 + exp(-z)),  [G | U] = the input

(Shazeer, 2020.) fp32 within; y is rounded once, to the type that the down product takes.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from . import checks
from .launch import launch

BLOCK = 1024


@triton.jit
def swiglu_kernel(gate_up, out, INNER: tl.constexpr, BLOCK: tl.constexpr):
    """BLOCK numbers of a row."""
    row = tl.program_id(0).to(tl.int64)
    i = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = i < INNER
    gate = tl.load(gate_up + row * (2 * INNER) + i, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(gate_up + row * (2 * INNER) + INNER + i, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row * INNER + i, gate / (1.0 + tl.exp(-gate)) * up, mask=inside)


def swiglu(gate_up: torch.Tensor, *, dtype: torch.dtype) -> torch.Tensor:
    """Activated rows.

    Args:
        gate_up: (R, 2 inner) float, the gate first.
        dtype: float32, float16 or bfloat16, of the result.

    Returns:
        (R, inner) of that dtype.

    Raises:
        KernelArgumentError: a shape, dtype or device does not fit.
    """
    checks.tensor("gate_up", gate_up, (None, None), checks.FLOATS)
    checks.multiple("columns of gate_up", gate_up.shape[1], 2)
    rows, inner = gate_up.shape[0], gate_up.shape[1] // 2
    out = torch.empty((rows, inner), dtype=dtype, device=gate_up.device)
    checks.tensor("result", out, (rows, inner), checks.FLOATS)
    checks.device(gate_up=gate_up, result=out)
    launch(swiglu_kernel, (rows, triton.cdiv(inner, BLOCK)), gate_up, out, INNER=inner, BLOCK=BLOCK)
    return out
