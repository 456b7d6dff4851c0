"""Decode attention by logical position, for rows of chains and of token trees.

    y[r, h] = sum_i softmax_i(scale q[r, h] . K[t[r, i], h']) V[t[r, i], h'],  first <= i < n[r],  h' = h /
    group

t[r] lists the cache slots of row r's ancestors and itself, in order of their positions: position i of the
text is always lane i of the tiles, wherever its keys lie, so a branch of a tree gives the very bits of the
chain that it becomes (docs/numerics.md). With a window, first = max(0, n[r] - window).

Positions are cut into splits of SPLIT, at fixed places, one program each with an online softmax over tiles of
BLOCK_N; a second kernel puts a row's own splits together in order. Lanes that a row does not see are neither
read nor multiplied: they are replaced by exact zeros, so what lies in unused slots cannot matter. Queries,
and weights before the product with values, are rounded to the type of the cache; sums are fp32.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from . import checks
from .launch import launch

SPLIT = 256
# A tensor core's product has at least 16 rows: query heads that share keys fill some of them.
LEAST_GROUP = 16


@triton.jit
def split_kernel(
    q, keys, values, table, lengths, partial, tops, sums, scale, capacity, window,
    HEADS: tl.constexpr, KV_HEADS: tl.constexpr, DIM: tl.constexpr, GROUP: tl.constexpr,
    GROUP_PADDED: tl.constexpr, DIM_PADDED: tl.constexpr, BLOCK_N: tl.constexpr, SPLIT: tl.constexpr,
):  # fmt: skip
    """One split of one row's positions, for the query heads that share a key head."""
    row = tl.program_id(0).to(tl.int64)
    kv_head = tl.program_id(1)
    split = tl.program_id(2)
    member = tl.arange(0, GROUP_PADDED)
    d = tl.arange(0, DIM_PADDED)
    in_group, in_dim = member < GROUP, d < DIM
    head = kv_head * GROUP + member
    at = (row * HEADS + head)[:, None] * DIM + d[None, :]
    real = in_group[:, None] & in_dim[None, :]
    query = tl.load(q + at, mask=real, other=0.0).to(keys.dtype.element_ty)
    length = tl.load(lengths + row).to(tl.int32)
    first = tl.where(window > 0, tl.maximum(length - window, 0), 0)
    top = tl.full([GROUP_PADDED], float("-inf"), tl.float32)
    total = tl.zeros([GROUP_PADDED], tl.float32)
    result = tl.zeros([GROUP_PADDED, DIM_PADDED], tl.float32)
    begin = split * SPLIT
    for start in range(begin, tl.minimum(begin + SPLIT, length), BLOCK_N):
        position = start + tl.arange(0, BLOCK_N)
        seen = (position >= first) & (position < length)
        slot = tl.load(table + row * capacity + position, mask=seen, other=0).to(tl.int64)
        offset = (slot * KV_HEADS + kv_head) * DIM
        k = tl.load(keys + offset[None, :] + d[:, None], mask=seen[None, :] & in_dim[:, None], other=0.0)
        scores = tl.dot(query, k, input_precision="ieee") * scale
        scores = tl.where(seen[None, :], scores, float("-inf"))
        highest = tl.maximum(top, tl.max(scores, axis=1))
        # Nothing seen yet, before a window: no maximum, and exponents of zero instead of NaN.
        base = tl.where(highest == float("-inf"), 0.0, highest)
        weight = tl.exp(scores - base[:, None])
        kept = tl.exp(top - base)
        v = tl.load(values + offset[:, None] + d[None, :], mask=seen[:, None] & in_dim[None, :], other=0.0)
        total = total * kept + tl.sum(weight, axis=1)
        result = tl.dot(weight.to(v.dtype), v, result * kept[:, None], input_precision="ieee")
        top = highest
    splits = tl.num_programs(2)
    part = (row * HEADS + head) * splits + split
    tl.store(tops + part, top, mask=in_group)
    tl.store(sums + part, total, mask=in_group)
    tl.store(partial + part[:, None] * DIM + d[None, :], result, mask=real)


@triton.jit
def combine_splits_kernel(
    partial, tops, sums, lengths, out, splits, window,
    HEADS: tl.constexpr, DIM: tl.constexpr, DIM_PADDED: tl.constexpr, SPLIT: tl.constexpr,
):  # fmt: skip
    """One row and head: its splits, in order."""
    row = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    d = tl.arange(0, DIM_PADDED)
    in_dim = d < DIM
    length = tl.load(lengths + row).to(tl.int32)
    first = tl.where(window > 0, tl.maximum(length - window, 0), 0)
    top = float("-inf")
    total = 0.0
    result = tl.zeros([DIM_PADDED], tl.float32)
    for split in range(first // SPLIT, tl.cdiv(length, SPLIT)):
        part = (row * HEADS + head) * splits + split
        best = tl.load(tops + part)
        highest = tl.maximum(top, best)
        kept, factor = tl.exp(top - highest), tl.exp(best - highest)
        total = total * kept + tl.load(sums + part) * factor
        result = result * kept + tl.load(partial + part * DIM + d, mask=in_dim, other=0.0) * factor
        top = highest
    tl.store(out + (row * HEADS + head) * DIM + d, result / total, mask=in_dim)


def decode_attention(
    q: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    table: torch.Tensor,
    lengths: torch.Tensor,
    *,
    scale: float,
    window: int = 0,
) -> torch.Tensor:
    """Attention of rows over the cache slots that their table lists.

    Args:
        q: (R, heads, dim) float, R 1 to 64.
        keys: (slots, kv heads, dim) float, one layer's cache; kv heads divides heads.
        values: the same.
        table: (R, capacity) int: a row's ancestors and itself by position; what comes after its length is not
            read.
        lengths: (R,) int, positions that a row has, 1 to capacity (on the device, so not checked).
        scale: of the scores, usually dim ** -0.5.
        window: how many of the last positions a row sees; 0 for all.

    Returns:
        (R, heads, dim) in the type of ``q``.

    Raises:
        KernelArgumentError: a shape, dtype or device does not fit.
    """
    checks.tensor("q", q, (None, None, None), checks.FLOATS)
    rows, heads, dim = q.shape
    checks.size("rows of q", rows, 1, checks.MAX_ROWS)
    checks.size("head size", dim, 1, 256)
    checks.tensor("keys", keys, (None, None, dim), checks.FLOATS)
    kv_heads = keys.shape[1]
    checks.multiple("heads of q", heads, kv_heads)
    checks.tensor("values", values, keys.shape, (keys.dtype,))
    checks.tensor("table", table, (rows, None), checks.INTEGERS)
    checks.tensor("lengths", lengths, (rows,), checks.INTEGERS)
    checks.size("window", window, 0, 2**31 - 1)
    checks.device(q=q, keys=keys, values=values, table=table, lengths=lengths)
    capacity, group = table.shape[1], heads // kv_heads
    splits = triton.cdiv(capacity, SPLIT)
    partial = torch.empty((rows, heads, splits, dim), dtype=torch.float32, device=q.device)
    tops, sums = torch.empty((2, rows, heads, splits), dtype=torch.float32, device=q.device)
    padded = max(16, triton.next_power_of_2(dim))
    # fp32 goes without tensor cores, so operands lie in registers: fewer positions, shared by more warps.
    wide = keys.dtype == torch.float32
    launch(
        split_kernel, (rows, kv_heads, splits), q, keys, values, table, lengths, partial, tops, sums, scale,
        capacity, window, HEADS=heads, KV_HEADS=kv_heads, DIM=dim, GROUP=group,
        GROUP_PADDED=max(LEAST_GROUP, triton.next_power_of_2(group)), DIM_PADDED=padded,
        BLOCK_N=32 if wide else 64, SPLIT=SPLIT, warps=8 if wide else 4,
    )  # fmt: skip
    out = torch.empty_like(q)
    launch(
        combine_splits_kernel, (rows, heads), partial, tops, sums, lengths, out, splits, window,
        HEADS=heads, DIM=dim, DIM_PADDED=padded, SPLIT=SPLIT, warps=1,
    )  # fmt: skip
    return out
