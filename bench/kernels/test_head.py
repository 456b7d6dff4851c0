"""The greedy token: final norm, LM head and argmax."""

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
from .record import record
from .turns import Effort, take_turns

MOST_ROWS = 64
_SEED = 6
_EPS = 1e-5


@dataclass
class Head:
    """A head in both libraries, 64 hidden states, and their logits with how far they may be off."""

    model: str
    stored: str
    product: Product
    op: Any
    copies: list[torch.Tensor]
    x: np.ndarray
    logits: np.ndarray
    tolerance: np.ndarray


@pytest.fixture(scope="module")
def problem(request: pytest.FixtureRequest, machine: roofline.Machine) -> Head:
    model, name, stored = request.param
    product = MODELS[model].products[name]
    rng = np.random.default_rng(_SEED)
    x = rng.standard_normal((MOST_ROWS, product.k), dtype=np.float32)
    ones = np.ones(product.k, dtype=np.float32)
    normed = np.stack([references.rms_norm(row, ones, _EPS) for row in x]).astype(np.float32)
    op = _cpu.ops.Head(product.outputs, product.k, stored, machine.isa, machine.threads)
    dtype = torch.float32 if stored == "F32" else torch.bfloat16
    matrix = torch.empty((product.outputs, product.k), dtype=dtype)
    logits = np.empty((MOST_ROWS, product.outputs))
    tolerance = np.empty_like(logits)
    for begin, end in slabs(product.outputs, product.k):
        rows = random_rows(rng, end - begin, product.k, stored, product.k**-0.5)
        op.set_rows(begin, rows, stored)
        floats = references.weights(rows, stored, product.k)
        matrix[begin:end] = torch.from_numpy(floats).to(dtype)
        used = references.product_input(normed, stored)
        logits[:, begin:end] = used @ floats.T
        sizes = tolerances.norms(references.magnitudes(rows, stored, floats))
        tolerance[:, begin:end] = tolerances.linear(tolerances.norms(used), sizes, product.k)
    again = roofline.copies(matrix.nbytes) - 1
    copies = [matrix, *(matrix.clone() for _ in range(again))]
    return Head(model, stored, product, op, copies, x, logits, tolerance)


def torch_call(problem: Head, rows: int) -> Callable[[], torch.Tensor]:
    x, matrices = torch.from_numpy(problem.x[:rows]), cycle(problem.copies)
    functional, width = torch.nn.functional, (problem.product.k,)

    def call() -> torch.Tensor:
        matrix = next(matrices)
        normed = functional.rms_norm(x, width, eps=_EPS).to(matrix.dtype)
        return functional.linear(normed, matrix).argmax(dim=1)

    return call


@torch.inference_mode()
def test_head(benchmark: Any, problem: Head, rows: int, machine: roofline.Machine, effort: Effort) -> None:
    x = np.ascontiguousarray(problem.x[:rows])
    tokens = problem.op.argmax(x)
    chosen = np.take_along_axis(problem.logits[:rows], tokens[:, None], axis=1)
    # Any token whose logit may be the largest once both are rounded; inputs are normed in float32 as well.
    slack = 2 * problem.tolerance[:rows].max(axis=1, keepdims=True)
    best = problem.logits[:rows].max(axis=1, keepdims=True)
    assert (best - chosen <= slack).all(), f"seed {_SEED}: {tokens} are not the greatest"
    times = take_turns(benchmark, lambda: problem.op.argmax(x), torch_call(problem, rows), effort)
    record(
        benchmark,
        machine,
        times,
        op="argmax",
        model=problem.model,
        stored=problem.stored,
        rows=rows,
        moved=problem.op.bytes + x.nbytes,
        multiply_adds=rows * problem.product.outputs * problem.product.k,
        bound=problem.stored,
        shape=[problem.product.outputs, problem.product.k],
        torch_dtype=str(problem.copies[0].dtype),
    )
