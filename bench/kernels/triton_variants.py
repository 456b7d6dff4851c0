"""Every variant of the Triton kernels that is compiled for the resource table: what launchers ask for at real
shapes.

Launchers run on meta tensors under :func:`specee.triton_kernels.launch.recording`, so a variant is the one
that a user would get: same tiles, same warps, same specialisation of its arguments.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch

from specee.triton_kernels import (
    acceptance,
    attention,
    compaction,
    drawing,
    grouped,
    noise,
    norm_linear,
    predictor,
    quantised,
    rms_norm,
    rope_cache,
    row_linear,
    row_linear_quantised,
    scoring,
    shadow,
    swiglu,
)
from specee.triton_kernels.launch import Launch, recording

from .models import MODELS, Shape

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
# Every type at one model's sizes, and others' sizes where they differ: a head of 64, no shared key heads.
MODELS_AND_DTYPES = {"Llama-3-8B": tuple(DTYPES), "Llama-2-7B": ("bf16",), "SmolLM2-135M": ("fp32", "bf16")}
EPS = 1e-5
_CAPACITY, _SLOTS, _ROWS, _DRAFTED = 4096, 4096, 4, 8

Tensor = torch.Tensor


class Variant(NamedTuple):
    """``name`` is op, model, type and kernel."""

    name: str
    launch: Launch


def empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def ints(*shape: int) -> Tensor:
    return empty(*shape, dtype=torch.int32)


def packed(outputs: int, k: int, bits: int) -> quantised.QuantisedMatrix:
    kind = torch.int8 if bits == 8 else torch.uint8
    values = empty(k // quantised.BLOCK, outputs, quantised.BLOCK * bits // 8, dtype=kind)
    return quantised.QuantisedMatrix(values, empty(k // quantised.BLOCK, outputs, dtype=torch.float16), bits)


def mlp(count: int) -> predictor.PredictorWeights:
    return predictor.PredictorWeights(empty(512, 3 * count), empty(512), empty(512), empty(1))


def head_ops(shape: Shape, dtype: torch.dtype) -> dict[str, Callable[[], object]]:
    """What scores states with the head; hidden states are fp32, as the residual stream is."""
    hidden, norm = empty(_ROWS, shape.hidden), empty(shape.hidden, dtype=dtype)
    head = empty(shape.vocab, shape.hidden, dtype=dtype)
    found: dict[str, Callable[[], object]] = {
        "shadow": lambda: shadow.shadow_agreement(hidden, norm, head, ints(_ROWS), eps=EPS)
    }
    for count in (4, 16):
        found[f"scoring k={count}"] = lambda k=count: scoring.score_candidates(
            hidden, norm, head, ints(k), eps=EPS
        )
        found[f"grouped k={count}"] = lambda k=count: grouped.score_nodes(
            hidden, norm, head, ints(_ROWS, k), eps=EPS
        )
        found[f"predictor k={count}"] = lambda k=count: predictor.predict_exit(
            hidden, norm, head, ints(_ROWS, k), empty(_ROWS, k), mlp(k), eps=EPS
        )
    found["predictor k=4, first layer"] = lambda: predictor.predict_exit(
        hidden, norm, head, ints(_ROWS, 4), None, mlp(4), eps=EPS
    )
    return found


def product_ops(shape: Shape, dtype: torch.dtype) -> dict[str, Callable[[], object]]:
    """The products of a layer, narrow and wide, and what is around them."""
    x, norm = empty(_ROWS, shape.hidden, dtype=dtype), empty(shape.hidden, dtype=dtype)
    inner = empty(_ROWS, shape.inner, dtype=dtype)
    wide = (2 * shape.inner, shape.hidden)
    return {
        "row_linear o": lambda: row_linear.row_linear(x, empty(shape.hidden, shape.hidden, dtype=dtype)),
        "row_linear gate_up": lambda: row_linear.row_linear(x, empty(*wide, dtype=dtype)),
        "row_linear int8 down": lambda: row_linear_quantised.row_linear_quantised(
            inner, packed(shape.hidden, shape.inner, 8)
        ),
        "row_linear int4 down": lambda: row_linear_quantised.row_linear_quantised(
            inner, packed(shape.hidden, shape.inner, 4)
        ),
        "row_linear int8 gate_up": lambda: row_linear_quantised.row_linear_quantised(x, packed(*wide, 8)),
        "row_linear int4 gate_up": lambda: row_linear_quantised.row_linear_quantised(x, packed(*wide, 4)),
        "norm_linear qkv": lambda: norm_linear.norm_linear(
            empty(_ROWS, shape.hidden),
            norm,
            empty(shape.products["qkv"].outputs, shape.hidden, dtype=dtype),
            eps=EPS,
        ),
        "norm_linear gate_up": lambda: norm_linear.norm_linear(
            empty(_ROWS, shape.hidden), norm, empty(*wide, dtype=dtype), eps=EPS
        ),
        "rms_norm": lambda: rms_norm.rms_norm(empty(_ROWS, shape.hidden), norm, eps=EPS, dtype=dtype),
        "swiglu": lambda: swiglu.swiglu(empty(_ROWS, 2 * shape.inner), dtype=dtype),
    }


def cache_ops(shape: Shape, dtype: torch.dtype) -> dict[str, Callable[[], object]]:
    """What reads and writes keys and values of that type."""
    heads, kv, dim = shape.heads, shape.kv_heads, shape.head_dim
    keys, angles = empty(_SLOTS, kv, dim, dtype=dtype), empty(_CAPACITY, dim // 2)
    layers = empty(2, _SLOTS, kv, dim, dtype=dtype)
    return {
        "rope_cache": lambda: rope_cache.rope_append(
            empty(_ROWS, heads + 2 * kv, dim), ints(_ROWS), ints(_ROWS), angles, angles, keys, keys
        ),
        "attention": lambda: attention.decode_attention(
            empty(_ROWS, heads, dim), keys, keys, ints(_ROWS, _CAPACITY), ints(_ROWS), scale=dim**-0.5
        ),
        "compaction": lambda: compaction.compact(layers, layers, ints(_DRAFTED), 100),
    }


def token_ops(shape: Shape) -> dict[str, Callable[[], object]]:
    """What has one type only."""
    logits, long = empty(_ROWS, shape.vocab), empty(_ROWS, dtype=torch.int64)
    return {
        "noise": lambda: noise.uniforms(long, long, shape.vocab),
        "drawing greedy": lambda: drawing.draw_tokens(logits),
        "drawing sampled": lambda: drawing.draw_tokens(logits, empty(_ROWS, dtype=torch.float64), long, long),
        "acceptance": lambda: acceptance.accept(
            ints(_ROWS, 64), ints(_ROWS, 64), ints(_ROWS, 64), ints(_ROWS)
        ),
    }


def variants() -> list[Variant]:
    """All of them; launches that compile to the same code are there once."""
    seen: set[tuple[object, ...]] = set()
    found = []
    for model, dtypes in MODELS_AND_DTYPES.items():
        shape = MODELS[model]
        ops = {f"{op} {model}": call for op, call in token_ops(shape).items()}
        for name in dtypes:
            dtype = DTYPES[name]
            made = head_ops(shape, dtype) | product_ops(shape, dtype) | cache_ops(shape, dtype)
            ops |= {f"{op} {model} {name}": call for op, call in made.items()}
        for op, call in ops.items():
            with recording() as launches:
                call()
            for launch in launches:
                if (key := identity(launch)) not in seen:
                    seen.add(key)
                    found.append(Variant(f"{op}: {launch.kernel.fn.__name__}", launch))
    return found


def quick_ones() -> list[Variant]:
    """One of each kernel: in bf16, which the interpreter cannot show, where it has that."""
    chosen: dict[str, Variant] = {}
    for variant in variants():
        kernel = variant.launch.kernel.fn.__name__
        if kernel not in chosen or (" bf16:" in variant.name and " bf16:" not in chosen[kernel].name):
            chosen[kernel] = variant
    return list(chosen.values())


def identity(launch: Launch) -> tuple[object, ...]:
    """Equal for launches that compile to the same code."""
    name = launch.kernel.fn.__name__
    return (name, *map(specialised, launch.arguments), *launch.constants.items(), launch.warps, launch.stages)


def specialised(argument: object) -> tuple[str, object]:
    """Triton's type of an argument, and what else it compiles in: a value of 1, or divisibility by 16."""
    if isinstance(argument, torch.Tensor):
        return "*" + _POINTED[argument.dtype], 16
    if isinstance(argument, float):
        return "fp32", None
    assert isinstance(argument, int), argument
    if argument == 1:
        return "constexpr", 1
    return "i32", 16 if argument % 16 == 0 else None


_POINTED = {
    torch.float64: "fp64",
    torch.float32: "fp32",
    torch.float16: "fp16",
    torch.bfloat16: "bf16",
    torch.int64: "i64",
    torch.int32: "i32",
    torch.int8: "i8",
    torch.uint8: "u8",
    torch.bool: "i1",
}
