"""What is done to one row by itself, in the cache: RMSNorm, and rounding an input to blocks of 8 bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from specee import _cpu

from . import references, roofline, tolerances
from .models import MODELS, Shape
from .record import check_same, record
from .turns import Effort, take_turns

_SEED = 8
_EPS = 1e-5


@pytest.fixture(scope="module")
def problem(request: pytest.FixtureRequest) -> Shape:
    return MODELS[request.param[0]]


def random_row(size: int) -> np.ndarray:
    return np.random.default_rng(_SEED).standard_normal(size, dtype=np.float32)


@torch.inference_mode()
def test_rms_norm(benchmark: Any, problem: Shape, machine: roofline.Machine, effort: Effort) -> None:
    k = problem.hidden
    x, w, y = random_row(k), 1 + 0.1 * random_row(k), np.full(k, np.nan, dtype=np.float32)
    _cpu.ops.rms_norm(x, w, _EPS, y, machine.isa)
    expected = references.rms_norm(x, w, _EPS)
    worst = np.abs(y - expected) - tolerances.rms_norm(expected, k)
    assert worst.max() <= 0, f"seed {_SEED}: wrong by {worst.max()} more than rounding explains"
    row, weight = torch.from_numpy(x), torch.from_numpy(w)

    def theirs() -> torch.Tensor:
        return torch.nn.functional.rms_norm(row, (k,), weight, _EPS)

    check_same(theirs().numpy(), expected)
    times = take_turns(benchmark, lambda: _cpu.ops.rms_norm(x, w, _EPS, y, machine.isa), theirs, effort)
    record(
        benchmark,
        machine,
        times,
        op="rms_norm",
        model=problem.name,
        stored="fp32",
        rows=1,
        moved=x.nbytes + w.nbytes + y.nbytes,
        multiply_adds=2 * k,
        bound=None,
        shape=[k],
        torch_dtype="torch.float32",
    )


@torch.inference_mode()
def test_quantise(benchmark: Any, problem: Shape, machine: roofline.Machine, effort: Effort) -> None:
    x = random_row(problem.inner)
    q, scale = _cpu.ops.quantize_row(x, machine.isa)
    expected_q, expected_scale = references.quantise(x)
    np.testing.assert_array_equal(q, expected_q)
    np.testing.assert_array_equal(scale, expected_scale)
    blocks = torch.from_numpy(x).view(-1, references.BLOCK)

    def theirs() -> tuple[torch.Tensor, torch.Tensor]:
        scales = blocks.abs().amax(dim=1, keepdim=True) * (1 / 127)
        return torch.round(blocks / scales).to(torch.int8), scales

    integers, scales = theirs()
    check_same(
        (integers * scales).view(-1).numpy(), q * np.repeat(scale.astype(np.float64), references.BLOCK)
    )
    times = take_turns(benchmark, lambda: _cpu.ops.quantize_row(x, machine.isa), theirs, effort)
    record(
        benchmark,
        machine,
        times,
        op="quantise",
        model=problem.name,
        stored="int8",
        rows=1,
        moved=x.nbytes + q.nbytes + scale.nbytes,
        multiply_adds=problem.inner,
        bound=None,
        shape=[problem.inner],
        torch_dtype="torch.float32",
    )
