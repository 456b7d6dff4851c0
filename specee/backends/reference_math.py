"""The arithmetic of one decoder row in torch eager: one formula a function, fp32 throughout.

Shapes are those of a single row; nothing here knows of batches, caches or threads, so a row's result
cannot depend on the rows beside it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from specee.types import RopeConfig


def linear(x: Tensor, weight: Tensor, bias: Tensor | None, *, round_input: bool) -> Tensor:
    """``weight @ x + bias`` accumulated in fp32: (in,) fp32 -> (out,) fp32.

    ``weight`` is (out, in) fp32. With ``round_input`` the activations are first rounded to bf16, once:
    the promise of the bf16 weight format.
    """
    if round_input:
        x = x.to(torch.bfloat16).to(torch.float32)
    y = torch.mv(weight, x)
    return y if bias is None else y + bias


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
