"""Final norm and LM head: the greedy token of rows; shadow tokens of states, and how sure they are."""

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
from .turns import Effort, Times, take_turns

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


def torch_argmax(problem: Head, rows: int) -> Callable[[], torch.Tensor]:
    logits = torch_logits(problem, rows)
    return lambda: logits().argmax(dim=1)


def torch_shadow(problem: Head, rows: int) -> Callable[[], tuple[torch.Tensor, torch.Tensor]]:
    logits = torch_logits(problem, rows)

    def call() -> tuple[torch.Tensor, torch.Tensor]:
        best = logits().softmax(dim=1, dtype=torch.float32).max(dim=1)
        return best.indices, best.values

    return call


def torch_logits(problem: Head, rows: int) -> Callable[[], torch.Tensor]:
    x, matrices = torch.from_numpy(problem.x[:rows]), cycle(problem.copies)
    functional, width = torch.nn.functional, (problem.product.k,)

    def call() -> torch.Tensor:
        matrix = next(matrices)
        normed = functional.rms_norm(x, width, eps=_EPS).to(matrix.dtype)
        return functional.linear(normed, matrix)

    return call


@torch.inference_mode()
def test_head(benchmark: Any, problem: Head, rows: int, machine: roofline.Machine, effort: Effort) -> None:
    x = np.ascontiguousarray(problem.x[:rows])
    check_greatest(problem, problem.op.argmax(x))
    times = take_turns(benchmark, lambda: problem.op.argmax(x), torch_argmax(problem, rows), effort)
    note(benchmark, problem, rows, machine, times, "argmax")


@torch.inference_mode()
def test_shadow(benchmark: Any, problem: Head, rows: int, machine: roofline.Machine, effort: Effort) -> None:
    x = np.ascontiguousarray(problem.x[:rows])
    tokens, confidences = problem.op.shadow(x)
    check_greatest(problem, tokens)
    logits = problem.logits[:rows]
    # No logit is off by more than its tolerance, so no probability by more than e to twice the largest one.
    slack = 2 * problem.tolerance[:rows].max(axis=1)
    largest = logits.max(axis=1)
    likely = -np.log(np.exp(logits - largest[:, None]).sum(axis=1))
    assert (np.abs(np.log(confidences) - likely) <= 2 * slack + 1e-5).all(), f"seed {_SEED}: {confidences}"
    times = take_turns(benchmark, lambda: problem.op.shadow(x), torch_shadow(problem, rows), effort)
    note(benchmark, problem, rows, machine, times, "shadow")


def check_greatest(problem: Head, tokens: np.ndarray) -> None:
    """Any token whose logit may be the largest once both are rounded; inputs are normed in float32 too."""
    rows = len(tokens)
    chosen = np.take_along_axis(problem.logits[:rows], tokens[:, None], axis=1)
    slack = 2 * problem.tolerance[:rows].max(axis=1, keepdims=True)
    best = problem.logits[:rows].max(axis=1, keepdims=True)
    assert (best - chosen <= slack).all(), f"seed {_SEED}: {tokens} are not the greatest"


def note(
    benchmark: Any, problem: Head, rows: int, machine: roofline.Machine, times: Times | None, op: str
) -> None:
    record(
        benchmark,
        machine,
        times,
        op=op,
        model=problem.model,
        stored=problem.stored,
        rows=rows,
        moved=problem.op.bytes + rows * problem.product.k * 4,
        multiply_adds=rows * problem.product.outputs * problem.product.k,
        bound=problem.stored,
        shape=[problem.product.outputs, problem.product.k],
        torch_dtype=str(problem.copies[0].dtype),
    )
