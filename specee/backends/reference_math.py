"""The arithmetic of one decoder row in torch eager: one formula a function, fp32 throughout.

Shapes are those of a single row; nothing here knows of batches, caches or threads, so a row's result
cannot depend on the rows beside it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from specee.models.blocks import QUANTISED
from specee.types import RopeConfig


@dataclass(frozen=True)
class Matrix:
    """(out, in) fp32 values, and the format they are stored in: it decides what a product's input becomes."""

    values: Tensor
    stored: str


def linear(x: Tensor, matrix: Matrix, bias: Tensor | None) -> Tensor:
    """``matrix @ input + bias`` accumulated in fp32: (in,) fp32 -> (out,) fp32."""
    y = torch.mv(matrix.values, product_input(x, matrix.stored))
    return y if bias is None else y + bias


def product_input(x: Tensor, stored: str) -> Tensor:
    """What a product with a matrix in that format multiplies for ``x``: (in,) fp32 -> the same.

    F32 and F16: ``x`` itself. BF16: ``x`` rounded to bf16. Quantised: ``x`` in 8-bit blocks.
    """
    if stored == "BF16":
        return x.to(torch.bfloat16).to(torch.float32)
    return in_blocks(x) if stored in QUANTISED else x


def in_blocks(x: Tensor) -> Tensor:
    """``scale * round(x / scale)`` in blocks of 32, with a block's scale = its largest magnitude / 127.

    All in fp32; ties round to even; a block whose largest magnitude is under 1e-30 becomes zero.
    """
    padded = torch.nn.functional.pad(x, (0, -len(x) % 32)).view(-1, 32)
    largest = padded.abs().amax(dim=1, keepdim=True)
    scale = largest * (1 / 127)
    rounded = torch.round(padded * (1.0 / scale)) * scale
    return torch.where(largest < 1e-30, 0.0, rounded).view(-1)[: len(x)]


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """``x * rsqrt(mean(x^2) + eps) * weight`` over the last axis (Zhang and Sennrich, 2019)."""
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * weight


def inverse_frequencies(rope: RopeConfig, head_dim: int) -> Tensor:
    """Rotation speed of each pair of a head: (head_dim / 2,) fp32, radians a position.

    ``theta^(-2i/d)`` (Su et al., 2021), then the scaling of ``rope``: ``linear`` divides every speed by
    ``factor`` (Chen et al., 2023); ``llama3`` divides those whose wavelength is over
    ``original_max_position / low_freq_factor``, keeps those under ``/ high_freq_factor``, and blends
    between (Llama 3.1 model card).
    """
    exponent = torch.arange(0, head_dim, 2, dtype=torch.int64).to(torch.float32) / head_dim
    speed = 1.0 / (rope.theta**exponent)
    if rope.scaling == "none":
        return speed
    if rope.scaling == "linear":
        return speed / rope.factor
    wavelength = 2 * math.pi / speed
    low, high = rope.low_freq_factor, rope.high_freq_factor
    smooth = (rope.original_max_position / wavelength - low) / (high - low)
    blended = (1 - smooth) * speed / rope.factor + smooth * speed
    scaled = torch.where(wavelength > rope.original_max_position / low, speed / rope.factor, speed)
    between = (wavelength <= rope.original_max_position / low) & (
        wavelength >= rope.original_max_position / high
    )
    return torch.where(between, blended, scaled)


def rotate(heads: Tensor, position: int, speeds: Tensor) -> Tensor:
    """Rotary embedding, rotate-half convention: (heads, head_dim) -> the same.

    Pair i is coordinates (i, i + head_dim / 2); its angle is ``position * speeds[i]`` in fp32.
    """
    angle = torch.full_like(speeds, float(position)) * speeds
    cos, sin = torch.cos(angle), torch.sin(angle)
    first, second = heads.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def attend(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Scaled dot-product attention of one row over its path (Vaswani et al., 2017), grouped heads.

    ``query`` (heads, d), ``keys`` and ``values`` (path, kv_heads, d), all fp32 -> (heads * d,).
    Query head h reads key head ``h // (heads // kv_heads)``.
    """
    heads, dim = query.shape
    grouped = query.view(keys.shape[1], -1, dim)
    scores = torch.einsum("kgd,pkd->kgp", grouped, keys) / math.sqrt(dim)
    mixed = torch.einsum("kgp,pkd->kgd", torch.softmax(scores, dim=-1), values)
    return mixed.reshape(heads * dim)


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """``silu(gate) * up`` (Shazeer, 2020): (intermediate,) each."""
    return torch.nn.functional.silu(gate) * up
