"""SwiGLU."""

from __future__ import annotations

import pytest
import torch

from specee.bench.kernels import torch_references as reference
from specee.errors import KernelArgumentError
from specee.triton_kernels.swiglu import swiglu
from tests.triton import bounds
from tests.triton.bounds import assert_within
from tests.triton.shapes import drawn


@pytest.mark.parametrize("shape", [(1, 1536), (7, 33), (30, 1024), None])
def test_against_the_reference(
    device: str, seed: int, dtype: torch.dtype, shape: tuple[int, int] | None
) -> None:
    rows, inner = shape or drawn(seed, (1, 20), (1, 3000))
    made = torch.Generator().manual_seed(seed)
    x = (6 * torch.randn(rows, 2 * inner, generator=made)).to(device, dtype)
    expected = reference.swiglu(x)
    tolerance = (bounds.EXP + 6) * bounds.UNIT * expected.abs() + bounds.stored(expected, dtype)
    # Below, exp(-gate) is a rounding of 88 and more times log2(e): relative, like every exponent's.
    gate = x[:, :inner].double()
    tolerance = tolerance + bounds.UNIT * gate.abs() * 2 * expected.abs() + 2.0**-126
    result = swiglu(x, dtype=dtype)
    assert result.dtype == dtype
    assert_within(result, expected, tolerance)
    swapped = x.roll(inner, 1).contiguous()
    with pytest.raises(AssertionError, match="rounding"):
        assert_within(swiglu(swapped, dtype=dtype), expected, tolerance)
    assert torch.equal(swiglu(x[-1:], dtype=dtype)[0], result[-1])


def test_a_row_beside_a_nan(device: str, seed: int) -> None:
    x = torch.randn(3, 64, generator=torch.Generator().manual_seed(seed)).to(device)
    before = swiglu(x, dtype=torch.float32)
    x[1] = torch.nan
    after = swiglu(x, dtype=torch.float32)
    assert torch.equal(before[[0, 2]], after[[0, 2]])
    assert after[1].isnan().all()


def test_an_odd_width_is_refused(device: str) -> None:
    with pytest.raises(KernelArgumentError, match="columns of gate_up is 7"):
        swiglu(torch.zeros(2, 7, device=device), dtype=torch.float32)
