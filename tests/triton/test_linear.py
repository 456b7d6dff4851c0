"""Products with floats and with quantised blocks, with and without a norm before them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from specee.bench.kernels import torch_references as reference
from specee.errors import KernelArgumentError
from specee.triton_kernels import tiles
from specee.triton_kernels.norm_linear import norm_linear
from specee.triton_kernels.quantised import LARGEST, dequantise, quantise
from specee.triton_kernels.rms_norm import rms_norm
from specee.triton_kernels.row_linear import row_linear
from specee.triton_kernels.row_linear_quantised import row_linear_quantised
from tests.triton import bounds
from tests.triton.bounds import assert_within
from tests.triton.shapes import drawn

EPS = 1e-5
# Rows, outputs, k: tiles that are not full on every side, and a matrix that has wider ones.
SHAPES = [(1, 48, 64), (5, 40, 200), (64, 33, 160), (1, 100, 32), None]
Shape = tuple[int, int, int] | None

Tensor = torch.Tensor


@pytest.fixture(autouse=True)
def small_matrices_are_wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wide tiles begin at a hundred outputs here: the interpreter is slow."""
    monkeypatch.setattr(tiles, "WIDE", 100)


def random_rows(made: torch.Generator, rows: int, k: int) -> Tensor:
    """Rows of different sizes; what comes after them in memory is NaN."""
    x = torch.full((rows + 16, k), torch.nan)
    x[:rows] = torch.randn(rows, k, generator=made) * (0.1 + 4 * torch.rand(rows, 1, generator=made))
    return x


def random_case(
    seed: int, device: str, dtype: torch.dtype, rows: int, outputs: int, k: int
) -> tuple[Tensor, ...]:
    """x (R, K) float32, norm (K,) and weight (N, K), these in ``dtype``."""
    made = torch.Generator().manual_seed(seed)
    x = random_rows(made, rows, k).to(device)[:rows]
    norm = (1 + 0.2 * torch.randn(k, generator=made)).to(device, dtype)
    weight = (torch.randn(outputs, k, generator=made) / k**0.5).to(device, dtype)
    return x, norm, weight


@pytest.mark.parametrize("shape", SHAPES)
def test_floats(device: str, seed: int, dtype: torch.dtype, shape: Shape) -> None:
    rows, outputs, k = shape or drawn(seed, (1, 64), (1, 90), (1, 500))
    x, _, weight = random_case(seed, device, dtype, rows, outputs, k)
    result = row_linear(x, weight)
    tolerance = bounds.products(x.to(dtype), weight, k)
    assert_within(result, reference.linear(x, weight), tolerance)
    weight[-1, -1] += 0.5  # one weight of all, the last
    with pytest.raises(AssertionError, match="rounding"):
        assert_within(row_linear(x, weight), reference.linear(x, weight * 0.999), tolerance)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("shape", [(1, 48, 64), (5, 40, 224), (64, 33, 160), (1, 100, 32), None])
def test_quantised(device: str, seed: int, dtype: torch.dtype, bits: int, shape: Shape) -> None:
    rows, outputs, blocks = shape or drawn(seed, (1, 64), (1, 90), (1, 10))
    k = blocks if shape else 32 * blocks
    x, _, weight = random_case(seed, device, torch.float32, rows, outputs, k)
    matrix, x = quantise(weight, bits), x.to(dtype)
    result = row_linear_quantised(x, matrix)
    floats = dequantise(matrix)
    tolerance = bounds.products(x, floats, k)
    assert_within(result, x.double() @ floats.double().T, tolerance)
    with pytest.raises(AssertionError, match="rounding"):  # the weights before they were rounded are others
        assert_within(result, x.double() @ weight.double().T, tolerance)


@pytest.mark.parametrize("bits", [8, 4])
def test_quantised_weights_are_within_half_a_step(seed: int, bits: int) -> None:
    weight = torch.randn(20, 96, generator=torch.Generator().manual_seed(seed))
    weight[3, 32:64] = 0
    matrix = quantise(weight, bits)
    assert matrix.shape == (20, 96)
    assert matrix.values.numel() == 20 * 96 * bits // 8
    step = matrix.scales.float().T.repeat_interleave(32, 1)
    # A scale rounded down by half a unit of fp16 leaves the largest weight that much out of reach.
    assert ((dequantise(matrix) - weight).abs() <= step * (0.5 + LARGEST[bits] * 2.0**-11 + 1e-5)).all()
    assert (dequantise(matrix)[3, 32:64] == 0).all()


@pytest.mark.parametrize("shape", SHAPES)
def test_norm_before_floats(device: str, seed: int, dtype: torch.dtype, shape: Shape) -> None:
    rows, outputs, k = shape or drawn(seed, (1, 64), (1, 90), (2, 500))
    x, norm, weight = random_case(seed, device, dtype, rows, outputs, k)
    normed = reference.rms_norm(x, norm, EPS)
    # An input that is off by rounding may round to the type's other neighbour.
    off = (
        bounds.relative_norm(k) + (2 * bounds.ROUNDING[dtype] if dtype != torch.float32 else 0)
    ) * normed.abs()
    off = off + bounds.SMALLEST[dtype] * 2
    tolerance = bounds.products(normed, weight, k) + off @ weight.double().abs().T
    result = norm_linear(x, norm, weight, eps=EPS)
    assert_within(result, normed @ weight.double().T, tolerance)
    apart = row_linear(rms_norm(x, norm, eps=EPS, dtype=dtype), weight)
    assert_within(result, apart.double(), tolerance * 2)


@pytest.mark.parametrize(("rows", "k"), [(1, 64), (7, 1500), (70, 31)])
def test_norm(device: str, seed: int, dtype: torch.dtype, rows: int, k: int) -> None:
    x, norm, _ = random_case(seed, device, dtype, rows, 1, k)
    expected = reference.rms_norm(x, norm, EPS)
    tolerance = bounds.relative_norm(k) * expected.abs() + bounds.stored(expected, dtype)
    result = rms_norm(x, norm, eps=EPS, dtype=dtype)
    assert result.dtype == dtype
    assert_within(result, expected, tolerance)
    with pytest.raises(AssertionError, match="rounding"):
        assert_within(rms_norm(x, norm, eps=x.square().mean().item(), dtype=dtype), expected, tolerance)


OPS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "floats": lambda x, norm, w: row_linear(x, w),
    "int8": lambda x, norm, w: row_linear_quantised(x.to(w.dtype), quantise(w, 8)),
    "int4": lambda x, norm, w: row_linear_quantised(x.to(w.dtype), quantise(w, 4)),
    "norm and floats": lambda x, norm, w: norm_linear(x, norm, w, eps=EPS),
    "norm": lambda x, norm, w: rms_norm(x, norm, eps=EPS, dtype=w.dtype),
}


@pytest.mark.parametrize("op", OPS)
def test_a_row_alone_has_the_bits_of_a_row_among_others(
    device: str, seed: int, op: str, dtype: torch.dtype
) -> None:
    x, norm, weight = random_case(seed, device, dtype, 37, 40, 192)
    together = OPS[op](x, norm, weight)
    for row in (0, 7, 15, 16, 36):
        assert torch.equal(OPS[op](x[row : row + 1], norm, weight)[0], together[row])
    poisoned = torch.full_like(x, torch.nan)
    poisoned[20] = x[20]
    assert torch.equal(OPS[op](poisoned, norm, weight)[20], together[20])
    assert not torch.equal(together[20], together[21])


def test_what_does_not_fit_is_refused(device: str) -> None:
    x, norm, weight = random_case(1, device, torch.float32, 2, 32, 64)
    with pytest.raises(KernelArgumentError, match=r"weight has shape \(32, 63\): allowed is \(any, 64\)"):
        row_linear(x, weight[:, 1:].contiguous())
    with pytest.raises(KernelArgumentError, match="rows of x is 65"):
        norm_linear(torch.zeros(65, 64, device=device), norm, weight, eps=EPS)
    with pytest.raises(KernelArgumentError, match="columns of weight is 63"):
        quantise(weight[:, 1:], 8)
    with pytest.raises(KernelArgumentError, match="bits is 5"):
        quantise(weight, 5)
    matrix = quantise(weight, 8)
    with pytest.raises(KernelArgumentError, match=r"scales has shape \(1, 32\)"):
        row_linear_quantised(x, matrix._replace(scales=matrix.scales[1:]))
    with pytest.raises(KernelArgumentError, match="values"):
        row_linear_quantised(x, matrix._replace(bits=4))
