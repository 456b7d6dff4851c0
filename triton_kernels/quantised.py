"""How the GPU kernels keep int8 and int4 weights: the one place that knows the layout.

A matrix (N, K), K a multiple of 32, is cut into blocks of 32 weights along k, each with an fp16 scale:

    W[n, 32 b + j] = scale[b, n] * q[b, n, j]

    scales  (K / 32, N)       fp16
    int8    (K / 32, N, 32)   int8, q in -127..127
    int4    (K / 32, N, 16)   uint8: byte j holds q[j] + 8 in its low and q[j + 16] + 8 in its high four bits,
    q in -7..7

Blocks come first, so that what a program reads in one turn, the same block of neighbouring outputs, is one
run of memory.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from specee.errors import KernelArgumentError

from . import checks

BLOCK = 32
LARGEST = {8: 127, 4: 7}


class QuantisedMatrix(NamedTuple):
    """``values`` and ``scales`` as laid out above; ``bits`` is 8 or 4."""

    values: torch.Tensor
    scales: torch.Tensor
    bits: int

    @property
    def shape(self) -> tuple[int, int]:
        """(N, K) of the matrix that this is."""
        return self.values.shape[1], self.values.shape[0] * BLOCK


def quantise(weight: torch.Tensor, bits: int) -> QuantisedMatrix:
    """Round to nearest, ties to even, by each block's scale: ``max |w| / largest``, itself rounded to fp16.

    Args:
        weight: (N, K) float, K a multiple of 32.
        bits: 8 or 4.

    Raises:
        KernelArgumentError: K or ``bits`` does not fit.
    """
    check_bits(bits)
    checks.multiple("columns of weight", weight.shape[1], BLOCK)
    blocks = weight.float().reshape(weight.shape[0], -1, BLOCK).transpose(0, 1)
    scales = (blocks.abs().amax(-1) / LARGEST[bits]).half()
    inverse = torch.where(scales > 0, 1 / scales.float(), 0.0)
    q = torch.round(blocks * inverse[..., None]).clamp(-LARGEST[bits], LARGEST[bits]).to(torch.int8)
    if bits == 4:
        low, high = (q + 8).to(torch.uint8).chunk(2, -1)
        q = low | (high << 4)
    return QuantisedMatrix(q.contiguous(), scales.contiguous(), bits)


def integers(matrix: QuantisedMatrix) -> torch.Tensor:
    """(K / 32, N, 32) int8: q."""
    if matrix.bits == 8:
        return matrix.values
    return torch.cat([matrix.values & 15, matrix.values >> 4], -1).to(torch.int8) - 8


def dequantise(matrix: QuantisedMatrix) -> torch.Tensor:
    """(N, K) float32, exactly what the kernels multiply by."""
    floats = integers(matrix).float() * matrix.scales.float()[..., None]
    return floats.transpose(0, 1).reshape(matrix.shape)


def check_bits(bits: int) -> None:
    """Raise KernelArgumentError unless ``bits`` is 8 or 4."""
    if bits not in LARGEST:
        raise KernelArgumentError(f"bits is {bits}: allowed are 8 and 4")


def check_matrix(matrix: QuantisedMatrix) -> None:
    """Raise KernelArgumentError unless shapes and dtypes are those of the layout."""
    check_bits(matrix.bits)
    kind = torch.int8 if matrix.bits == 8 else torch.uint8
    checks.tensor("values", matrix.values, (None, None, BLOCK * matrix.bits // 8), (kind,))
    checks.tensor("scales", matrix.scales, matrix.values.shape[:2], (torch.float16,))
