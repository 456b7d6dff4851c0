"""Cache compaction: the accepted path's rows move to the slots right after the committed ones.

    cache[l, first + i] = cache[l, source[i]],  i = 0, 1, ... in order, source rising, first + i <= source[i]

In place: a program owns some numbers of every slot and moves them slot by slot, so that what a later move
reads was not overwritten by an earlier one. Layers, and keys and values, are moved in one launch.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from . import checks
from .launch import launch

BLOCK = 256


@triton.jit
def compact_kernel(keys, values, sources, first, count, slots, SIZE: tl.constexpr, BLOCK: tl.constexpr):
    """BLOCK numbers of every slot of a layer."""
    layer = tl.program_id(0).to(tl.int64)
    number = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = number < SIZE
    begin = layer * slots
    for index in range(count):
        source = tl.load(sources + index).to(tl.int64)
        old = (begin + source) * SIZE + number
        new = (begin + first + index) * SIZE + number
        if source >= 0:
            tl.store(keys + new, tl.load(keys + old, mask=inside), mask=inside)
            tl.store(values + new, tl.load(values + old, mask=inside), mask=inside)


def compact(keys: torch.Tensor, values: torch.Tensor, sources: torch.Tensor, first: int) -> None:
    """Move rows of the cache, in place.

    Args:
        keys: (layers, slots, kv heads, dim) float; changed.
        values: the same.
        sources: (P,) int: slots of the accepted rows, strictly rising, ``sources[i] >= first + i``; -1 from
            where the path ends (on the device, so not checked).
        first: the slot that the first of them moves to.

    Raises:
        KernelArgumentError: a shape, dtype, device or ``first`` does not fit.
    """
    checks.tensor("keys", keys, (None, None, None, None), checks.FLOATS)
    layers, slots, kv_heads, dim = keys.shape
    checks.tensor("values", values, keys.shape, (keys.dtype,))
    checks.tensor("sources", sources, (None,), checks.INTEGERS)
    checks.size("first", first, 0, slots - len(sources))
    checks.device(keys=keys, values=values, sources=sources)
    size = kv_heads * dim
    launch(
        compact_kernel, (layers, triton.cdiv(size, BLOCK)), keys, values, sources, first, len(sources), slots,
        SIZE=size, BLOCK=BLOCK, warps=2, stages=1,
    )  # fmt: skip
