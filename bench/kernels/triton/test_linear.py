"""Row-linear in every format, with and without the norm before it, and what is between products."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from specee.triton_kernels.norm_linear import norm_linear
from specee.triton_kernels.quantised import QuantisedMatrix, dequantise, quantise
from specee.triton_kernels.rms_norm import rms_norm
from specee.triton_kernels.row_linear import row_linear
from specee.triton_kernels.row_linear_quantised import row_linear_quantised
from specee.triton_kernels.swiglu import swiglu

from .. import torch_references as reference
from ..models import MODELS
from .cases import ROUNDED, Case, measure
from .gpu import Gpu

ROWS = (1, 4, 16, 64)
EPS, _SEED = 1e-5, 13
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}

functional = torch.nn.functional


def random_weight(model: str, name: str, dtype: torch.dtype) -> torch.Tensor:
    product = MODELS[model].products[name]
    torch.manual_seed(_SEED)
    return torch.randn(product.matrix_rows, product.k, device="cuda").to(dtype) / product.k**0.5


@torch.inference_mode()
@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("stored", DTYPES)
@pytest.mark.parametrize("name", ["o", "gate_up", "down"])
@pytest.mark.parametrize("model", ["Llama-3-8B"])
def test_row_linear(
    benchmark: Any, gpu: Gpu, turns: int, model: str, name: str, stored: str, rows: int
) -> None:
    weight = random_weight(model, name, DTYPES[stored])
    x = torch.randn(rows, weight.shape[1], device="cuda", dtype=weight.dtype)
    copies = [weight, *(weight.clone() for _ in range(gpu.copies(weight.nbytes) - 1))]
    case = Case(
        op=f"row_linear {name}", model=model, stored=stored, rows=rows,
        ours=lambda i: row_linear(x, copies[i]), theirs=lambda i: functional.linear(x, copies[i]),
        expected=reference.linear(x, weight), moved=weight.nbytes + x.nbytes + 4 * rows * len(weight),
        copies=len(copies),
    )  # fmt: skip
    measure(benchmark, gpu, case, turns)


@torch.inference_mode()
@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("name", ["o", "gate_up", "down"])
@pytest.mark.parametrize("model", ["Llama-3-8B"])
def test_row_linear_quantised(
    benchmark: Any, gpu: Gpu, turns: int, model: str, name: str, bits: int, rows: int
) -> None:
    """Beside torch in bf16, which has no product with such blocks."""
    matrix = quantise(random_weight(model, name, torch.float32), bits)
    floats = dequantise(matrix)
    wide = floats.bfloat16()
    x = torch.randn(rows, floats.shape[1], device="cuda").bfloat16()
    size = matrix.values.nbytes + matrix.scales.nbytes
    copies = [
        QuantisedMatrix(matrix.values.clone(), matrix.scales.clone(), bits) for _ in range(gpu.copies(size))
    ]
    case = Case(
        op=f"row_linear {name}", model=model, stored=f"int{bits}", rows=rows,
        ours=lambda i: row_linear_quantised(x, copies[i]), theirs=lambda _: functional.linear(x, wide),
        expected=x.double() @ floats.double().T, moved=size + x.nbytes + 4 * rows * len(floats),
        copies=len(copies),
    )  # fmt: skip
    measure(benchmark, gpu, case, turns)


@torch.inference_mode()
@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("name", ["qkv", "gate_up"])
@pytest.mark.parametrize("model", ["Llama-3-8B"])
def test_norm_linear(benchmark: Any, gpu: Gpu, turns: int, model: str, name: str, rows: int) -> None:
    weight = random_weight(model, name, torch.bfloat16)
    x = torch.randn(rows, weight.shape[1], device="cuda")
    norm = torch.rand(weight.shape[1], device="cuda").bfloat16() + 0.5
    copies = [weight, *(weight.clone() for _ in range(gpu.copies(weight.nbytes) - 1))]
    case = Case(
        op=f"norm_linear {name}", model=model, stored="bf16", rows=rows,
        ours=lambda i: norm_linear(x, norm, copies[i], eps=EPS),
        theirs=lambda i: functional.linear(
            functional.rms_norm(x, norm.shape, norm.float(), EPS).bfloat16(), copies[i]
        ),
        expected=reference.linear(reference.rms_norm(x, norm, EPS).float(), weight),
        moved=weight.nbytes + x.nbytes + 4 * rows * len(weight), copies=len(copies), within=ROUNDED,
    )  # fmt: skip
    measure(benchmark, gpu, case, turns)


@torch.inference_mode()
@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("model", ["Llama-3-8B"])
def test_rms_norm(benchmark: Any, gpu: Gpu, turns: int, model: str, rows: int) -> None:
    size = MODELS[model].hidden
    torch.manual_seed(_SEED)
    x, norm = torch.randn(rows, size, device="cuda"), torch.rand(size, device="cuda") + 0.5
    case = Case(
        op="rms_norm", model=model, stored="bf16", rows=rows,
        ours=lambda _: rms_norm(x, norm, eps=EPS, dtype=torch.bfloat16),
        theirs=lambda _: functional.rms_norm(x, norm.shape, norm, EPS).bfloat16(),
        expected=reference.rms_norm(x, norm, EPS), within=ROUNDED,
        moved=x.nbytes + 2 * x.numel() + norm.nbytes,
    )  # fmt: skip
    measure(benchmark, gpu, case, turns)


@torch.inference_mode()
@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("model", ["Llama-3-8B"])
def test_swiglu(benchmark: Any, gpu: Gpu, turns: int, model: str, rows: int) -> None:
    inner = MODELS[model].inner
    torch.manual_seed(_SEED)
    x = torch.randn(rows, 2 * inner, device="cuda")
    case = Case(
        op="swiglu", model=model, stored="bf16", rows=rows,
        ours=lambda _: swiglu(x, dtype=torch.bfloat16),
        theirs=lambda _: (functional.silu(x[:, :inner]) * x[:, inner:]).bfloat16(),
        expected=reference.swiglu(x), moved=x.nbytes + 2 * rows * inner, within=ROUNDED,
    )  # fmt: skip
    measure(benchmark, gpu, case, turns)
