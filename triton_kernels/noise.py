"""Noise as a function of (seed, position, token id): that of csrc/include/specee/philox.h and sampling.py.

    word = Philox4x32-10(counter (id >> 2, position low, position high, 0), key (seed low, seed high))[id & 3]
    u = (word + 0.5) / 2^32  in float64, exact          g = -log(-log(u))

(Salmon et al., SC 2011; Gumbel, 1954.) u is equal to the bit on every backend; g is as good as the logarithm
at hand.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from . import checks
from .launch import launch

BLOCK = 256


@triton.jit
def uniform_noise(seed, position, first, BLOCK: tl.constexpr):
    """(BLOCK,) float64 for the ids first, first + 1, ...; ``first`` and BLOCK are multiples of 4."""
    counter = (first // 4 + tl.arange(0, BLOCK // 4)).to(tl.uint32)
    zero = counter * 0
    low, high = zero + position.to(tl.uint32), zero + (position >> 32).to(tl.uint32)
    a, b, c, d = tl.philox(seed.to(tl.uint64, bitcast=True), counter, low, high, zero)
    words = tl.interleave(tl.interleave(a, c), tl.interleave(b, d))
    return (words.to(tl.float64) + 0.5) * 2.3283064365386963e-10


@triton.jit
def gumbel_noise(seed, position, first, BLOCK: tl.constexpr):
    """(BLOCK,) float64."""
    return -tl.log(-tl.log(uniform_noise(seed, position, first, BLOCK)))


@triton.jit
def uniforms_kernel(seeds, positions, out, count, BLOCK: tl.constexpr):
    """BLOCK ids of a row."""
    row = tl.program_id(0).to(tl.int64)
    first = tl.program_id(1) * BLOCK
    ids = first + tl.arange(0, BLOCK)
    u = uniform_noise(tl.load(seeds + row), tl.load(positions + row), first, BLOCK)
    tl.store(out + row * count + ids, u, mask=ids < count)


def uniforms(seeds: torch.Tensor, positions: torch.Tensor, count: int) -> torch.Tensor:
    """The numbers behind the noise of token ids 0 to count - 1.

    Args:
        seeds: (R,) int64, any bits.
        positions: (R,) int64.
        count: ids, 1 or more.

    Returns:
        (R, count) float64, in (0, 1).

    Raises:
        KernelArgumentError: a shape, dtype or device does not fit.
    """
    checks.tensor("seeds", seeds, (None,), (torch.int64,))
    checks.tensor("positions", positions, seeds.shape, (torch.int64,))
    checks.size("count", count, 1, 2**31 - BLOCK)
    checks.device(seeds=seeds, positions=positions)
    out = torch.empty((len(seeds), count), dtype=torch.float64, device=seeds.device)
    grid = (len(seeds), triton.cdiv(count, BLOCK))
    launch(uniforms_kernel, grid, seeds, positions, out, count, BLOCK=BLOCK, warps=1)
    return out
