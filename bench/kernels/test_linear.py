"""Row-linear products: a few rows times one weight matrix, input preparation included."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import numpy as np
import pytest
import torch

from specee import _cpu

from . import references, roofline, tolerances
from .blocks import random_rows, slabs
from .models import MODELS, Product
from .record import check_same, record
from .turns import Effort, take_turns

MOST_ROWS = 64
_SEED = 5


@dataclass
class Linear:
    """One matrix in both libraries, 64 rows of input, and their product with how far it may be off."""

    model: str
    name: str
    stored: str
    product: Product
    op: Any
    copies: list[torch.Tensor]
    x: np.ndarray
    expected: np.ndarray
    tolerance: np.ndarray


@pytest.fixture(scope="module")
def problem(request: pytest.FixtureRequest, machine: roofline.Machine) -> Linear:
    model, name, stored = request.param
    return build(model, name, stored, machine)


def build(model: str, name: str, stored: str, machine: roofline.Machine) -> Linear:
    """Weights slab by slab: made, packed, widened for torch and multiplied for the reference."""
    product = MODELS[model].products[name]
    total, k = product.matrix_rows, product.k
    rng = np.random.default_rng(_SEED)
    x = rng.standard_normal((MOST_ROWS, k), dtype=np.float32)
    dtype = torch.float32 if stored == "F32" else torch.bfloat16
    matrix = torch.empty((total, k), dtype=dtype)
    expected, error = np.empty((MOST_ROWS, total)), np.empty((MOST_ROWS, total))
    op = new_op(product, stored, machine)
    for begin, end in slabs(total, k):
        rows = random_rows(rng, end - begin, k, stored, k**-0.5)
        op.set_rows(begin, rows, stored)
        floats = references.weights(rows, stored, k)
        matrix[begin:end] = torch.from_numpy(floats).to(dtype)
        x_used = references.product_input(x, stored)
        expected[:, begin:end] = x_used @ floats.T
        error[:, begin:end] = tolerances.linear(
            tolerances.norms(x_used), tolerances.norms(references.magnitudes(rows, stored, floats)), k
        )
    if product.swiglu:
        gate, up = np.split(expected, 2, axis=1)
        error = tolerances.swiglu(gate, up, *np.split(error, 2, axis=1))
        expected = references.swiglu(gate, up)
    again = roofline.copies(matrix.nbytes) - 1
    copies = [matrix, *(matrix.clone() for _ in range(again))]
    return Linear(model, name, stored, product, op, copies, x, expected, error)


def new_op(product: Product, stored: str, machine: roofline.Machine) -> Any:
    """The operation, its weights not yet set."""

    def make(copies: int) -> Any:
        return _cpu.ops.Linear(
            product.outputs, product.k, stored, machine.isa, machine.threads, copies, product.swiglu
        )

    return roofline.from_memory(make)


def torch_call(problem: Linear, rows: int) -> Callable[[], torch.Tensor]:
    """The same product by torch, copies in turn, in the dtype of its weights."""
    x = torch.from_numpy(problem.x[:rows]).to(problem.copies[0].dtype)
    functional, matrices, halves = torch.nn.functional, cycle(problem.copies), problem.product.outputs

    def plain() -> torch.Tensor:
        return functional.linear(x, next(matrices))

    def swiglu() -> torch.Tensor:
        both = functional.linear(x, next(matrices))
        return functional.silu(both[:, :halves]) * both[:, halves:]

    return swiglu if problem.product.swiglu else plain


@torch.inference_mode()
def test_linear(
    benchmark: Any, problem: Linear, rows: int, machine: roofline.Machine, effort: Effort
) -> None:
    x = np.ascontiguousarray(problem.x[:rows])
    y = np.full((rows, problem.product.outputs), np.nan, dtype=np.float32)
    problem.op.run(x, y)
    worst = np.abs(y - problem.expected[:rows]) - problem.tolerance[:rows]
    assert worst.max() <= 0, f"seed {_SEED}: wrong by {worst.max()} more than rounding explains"
    theirs = torch_call(problem, rows)
    check_same(theirs().float().numpy(), problem.expected[:rows])
    times = take_turns(benchmark, lambda: problem.op.run(x, y), theirs, effort)
    record(
        benchmark,
        machine,
        times,
        op=problem.name,
        model=problem.model,
        stored=problem.stored,
        rows=rows,
        moved=problem.op.bytes + x.nbytes + y.nbytes,
        multiply_adds=rows * problem.product.matrix_rows * problem.product.k,
        bound=problem.stored,
        shape=[problem.product.matrix_rows, problem.product.k],
        torch_dtype=str(problem.copies[0].dtype),
    )
