"""Attention of the last rows of a context over a cache of keys and values."""

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
from .models import MODELS, Shape
from .record import check_same, record
from .turns import Effort, take_turns

MOST_ROWS = 64
_SEED = 7
_TORCH = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass
class Attention:
    """One layer's cache in both libraries, and the queries of its last 64 positions."""

    shape: Shape
    context: int
    dtype: str
    op: Any
    copies: list[tuple[torch.Tensor, torch.Tensor]]
    q: np.ndarray
    keys: np.ndarray
    values: np.ndarray


@pytest.fixture(scope="module")
def problem(request: pytest.FixtureRequest, machine: roofline.Machine) -> Attention:
    model, context, dtype = request.param
    shape = MODELS[model]
    rng = np.random.default_rng(_SEED)
    keys, values = (
        rng.standard_normal((context, shape.kv_heads, shape.head_dim), dtype=np.float32) for _ in range(2)
    )
    q = rng.standard_normal((MOST_ROWS, shape.heads, shape.head_dim), dtype=np.float32)
    size = 2 * keys.size * _TORCH[dtype].itemsize
    count = roofline.copies(size)
    op = _cpu.ops.Attention(
        shape.heads, shape.kv_heads, shape.head_dim, context, dtype, machine.isa, machine.threads, count
    )
    op.set(keys, values)
    # (1, kv heads, context, dim), contiguous: how transformers keeps them.
    pair = [
        torch.from_numpy(array).transpose(0, 1)[None].to(_TORCH[dtype]).contiguous()
        for array in (keys, values)
    ]
    copies = [(pair[0].clone(), pair[1].clone()) for _ in range(count)]
    return Attention(shape, context, dtype, op, copies, q, keys, values)


def torch_call(problem: Attention, rows: int) -> Callable[[], torch.Tensor]:
    """scaled_dot_product_attention, with a mask where rows see different positions."""
    dtype = _TORCH[problem.dtype]
    q = torch.from_numpy(problem.q[-rows:]).transpose(0, 1)[None].to(dtype).contiguous()
    caches = cycle(problem.copies)
    position = torch.arange(problem.context)
    mask = None if rows == 1 else position[None, :] <= (position[-rows:])[:, None]
    attend = torch.nn.functional.scaled_dot_product_attention

    def call() -> torch.Tensor:
        keys, values = next(caches)
        return attend(q, keys, values, attn_mask=mask, enable_gqa=True)

    return call


@torch.inference_mode()
def test_attention(
    benchmark: Any, problem: Attention, rows: int, machine: roofline.Machine, effort: Effort
) -> None:
    shape = problem.shape
    q = np.ascontiguousarray(problem.q[-rows:])
    out = np.full_like(q, np.nan)
    problem.op.run(q, out)
    keys, values = (references.stored_kv(array, problem.dtype) for array in (problem.keys, problem.values))
    expected = references.attention(q, keys, values)
    tolerance = tolerances.attention(
        np.linalg.norm(q, axis=2),
        float(np.linalg.norm(keys, axis=2).max()),
        float(np.abs(values).max()),
        shape.head_dim,
        problem.context,
    )
    worst = np.abs(out - expected) - tolerance[:, :, None]
    assert worst.max() <= 0, f"seed {_SEED}: wrong by {worst.max()} more than rounding explains"
    theirs = torch_call(problem, rows)
    check_same(theirs()[0].transpose(0, 1).float().numpy(), expected)
    times = take_turns(benchmark, lambda: problem.op.run(q, out), theirs, effort)
    visible = sum(range(problem.context - rows + 1, problem.context + 1))
    record(
        benchmark,
        machine,
        times,
        op="attention",
        model=shape.name,
        stored=problem.dtype,
        rows=rows,
        moved=problem.op.bytes + q.nbytes + out.nbytes,
        multiply_adds=2 * visible * shape.heads * shape.head_dim,
        bound="F32",  # whatever the cache holds, it is widened and multiplied in float32
        shape=[shape.heads, shape.kv_heads, shape.head_dim],
        context=problem.context,
        torch_dtype=str(_TORCH[problem.dtype]),
    )
