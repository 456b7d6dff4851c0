"""How far a result may be from its reference: bounds on rounding, none of them fitted.

The fp32 sum of n products is off by at most LAMBDA sqrt(n) 2^-24 |x| |w| (Higham and Mary, 2019; see
``bench/kernels/tolerances.py``), and a few roundings more where factors are applied.
"""

from __future__ import annotations

import torch

UNIT = 2.0**-24
LAMBDA = 10.0
ROUNDING = {torch.float32: 2.0**-24, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}
SMALLEST = {torch.float32: 0.0, torch.float16: 2.0**-25, torch.bfloat16: 0.0}
# A GPU's exponential is 2^x to two units after a rounding of x log2(e); the interpreter's is better.
EXP = 4

Tensor = torch.Tensor


def products(x: Tensor, w: Tensor, k: int) -> Tensor:
    """(R, N) for rows x (R, k) and w (N, k)."""
    return LAMBDA * (k + 4) ** 0.5 * UNIT * torch.outer(x.double().norm(dim=1), w.double().norm(dim=1))


def relative_norm(k: int) -> float:
    """Relative error of RMSNorm: half that of its sum of squares, and 6 roundings."""
    return (LAMBDA * k**0.5 / 2 + 6) * UNIT


def stored(expected: Tensor, dtype: torch.dtype) -> Tensor:
    """What rounding a result to the type it is stored in adds."""
    return expected.abs() * ROUNDING[dtype] + SMALLEST[dtype]


def softmax(logit_error: Tensor, expected: Tensor) -> Tensor:
    """Absolute error of probabilities: twice that of the logits (weight, and sum), and their own
    roundings."""
    return expected * (2 * logit_error.max(-1, keepdim=True).values + (2 * EXP + 20) * UNIT)


def assert_within(result: Tensor, expected: Tensor, tolerance: Tensor) -> None:
    """Fail with the worst excess; NaN where there should be none fails too."""
    assert result.shape == expected.shape, (result.shape, expected.shape)
    excess = (result.double() - expected).abs() - tolerance
    excess = torch.where(result.double() == expected, torch.zeros_like(excess), excess)  # infinities
    worst = excess.max().item()
    assert worst <= 0, f"wrong by {worst} more than rounding explains"
