"""Rotary embedding of queries and keys, and keys and values into the cache, in one launch.

    rot(x)[i] = x[i] cos[p, i] - x[i + d/2] sin[p, i],  rot(x)[i + d/2] = x[i + d/2] cos[p, i] + x[i] sin[p,
    i],  i < d/2

(Su et al., 2021; halves, as Hugging Face checkpoints have them.) Row r stands at position p[r] and goes to
the slot s[r] of the cache. fp32 within, rounded once, to the types of result and cache. One program a row and
head.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from . import checks
from .launch import launch


@triton.jit
def rope_cache_kernel(
    qkv, positions, slots, cos, sin, queries, keys, values,
    HEADS: tl.constexpr, KV_HEADS: tl.constexpr, HALF: tl.constexpr, PADDED: tl.constexpr,
):  # fmt: skip
    """One head of one row: a query's, a key's or a value's."""
    row = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    i = tl.arange(0, PADDED)
    inside = i < HALF
    source = qkv + (row * (HEADS + 2 * KV_HEADS) + head) * (2 * HALF) + i
    first = tl.load(source, mask=inside, other=0.0).to(tl.float32)
    second = tl.load(source + HALF, mask=inside, other=0.0).to(tl.float32)
    angle = tl.load(positions + row).to(tl.int64) * HALF + i
    c = tl.load(cos + angle, mask=inside, other=0.0)
    s = tl.load(sin + angle, mask=inside, other=0.0)
    slot = tl.load(slots + row).to(tl.int64)
    low, high = first * c - second * s, second * c + first * s
    if head < HEADS:
        at = queries + (row * HEADS + head) * (2 * HALF) + i
        tl.store(at, low, mask=inside)
        tl.store(at + HALF, high, mask=inside)
    elif head < HEADS + KV_HEADS:
        at = keys + (slot * KV_HEADS + head - HEADS) * (2 * HALF) + i
        tl.store(at, low, mask=inside)
        tl.store(at + HALF, high, mask=inside)
    else:
        at = values + (slot * KV_HEADS + head - HEADS - KV_HEADS) * (2 * HALF) + i
        tl.store(at, first, mask=inside)
        tl.store(at + HALF, second, mask=inside)


def rope_append(
    qkv: torch.Tensor,
    positions: torch.Tensor,
    slots: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
) -> torch.Tensor:
    """Rotated queries; rotated keys, and values, are written to the cache.

    Args:
        qkv: (R, heads + 2 kv heads, dim) float: queries, keys, values of each row.
        positions: (R,) int, rows of ``cos`` and ``sin``.
        slots: (R,) int, different from each other: where each row goes in the cache.
        cos: (positions, dim / 2) float32.
        sin: the same.
        keys: (slots, kv heads, dim) float, one layer's cache; written.
        values: the same.

    Returns:
        (R, heads, dim) in the type of the cache.

    Raises:
        KernelArgumentError: a shape, dtype or device does not fit.
    """
    checks.tensor("qkv", qkv, (None, None, None), checks.FLOATS)
    rows, all_heads, dim = qkv.shape
    checks.multiple("head size of qkv", dim, 2)
    checks.tensor("keys", keys, (None, None, dim), checks.FLOATS)
    kv_heads = keys.shape[1]
    heads = all_heads - 2 * kv_heads
    checks.size("heads of qkv less those of the cache", heads, 1, 1 << 16)
    checks.tensor("values", values, keys.shape, (keys.dtype,))
    checks.tensor("positions", positions, (rows,), checks.INTEGERS)
    checks.tensor("slots", slots, (rows,), checks.INTEGERS)
    checks.tensor("cos", cos, (None, dim // 2), (torch.float32,))
    checks.tensor("sin", sin, cos.shape, (torch.float32,))
    checks.device(qkv=qkv, keys=keys, values=values, positions=positions, slots=slots, cos=cos, sin=sin)
    queries = torch.empty((rows, heads, dim), dtype=keys.dtype, device=qkv.device)
    launch(
        rope_cache_kernel, (rows, all_heads), qkv, positions, slots, cos, sin, queries, keys, values,
        HEADS=heads, KV_HEADS=kv_heads, HALF=dim // 2, PADDED=triton.next_power_of_2(dim // 2), warps=1,
    )  # fmt: skip
    return queries
