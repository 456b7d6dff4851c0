"""Every operation once more in plain numpy: checked before it is timed, and compared with by the tests.

Sums of products are taken in float64, so a result is as good as exact beside one accumulated in float32.
"""

from __future__ import annotations

import gguf
import numpy as np
import numpy.typing as npt
from gguf.quants import dequantize

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int8]

FLOAT_FORMATS = ("F32", "F16", "BF16")
QUANTISED_FORMATS = ("Q4_0", "Q4_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K")
FORMATS = (*FLOAT_FORMATS, *QUANTISED_FORMATS)

BLOCK = 32
"""Inputs that share a scale, in products with quantised weights."""


def round_bf16(x: Floats) -> Floats:
    """The nearest bfloat16, ties to even."""
    bits = np.ascontiguousarray(x, dtype=np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)
    return rounded.astype(np.uint32).view(np.float32)


def quantise(x: Floats) -> tuple[Integers, Floats]:
    """One row in blocks of 32: integers q and a scale each, the largest magnitude / 127; all in float32.

    A block below 1e-30 throughout is zero, with a scale of zero.
    """
    blocks = np.pad(x, (0, -len(x) % BLOCK)).reshape(-1, BLOCK)
    largest = np.abs(blocks).max(axis=1, keepdims=True)
    small = largest < np.float32(1e-30)
    scale = np.where(small, np.float32(0), largest * np.float32(1 / 127))
    inverse = np.float32(1) / np.where(small, np.float32(1), scale)
    q = np.where(small, np.float32(0), np.rint(blocks * inverse)).astype(np.int8)
    return q.reshape(-1)[: len(x)], scale[:, 0]


def product_input(x: Floats, stored: str) -> Doubles:
    """What a product with a matrix in that format multiplies for the rows ``x``."""
    if stored == "BF16":
        return round_bf16(x).astype(np.float64)
    if stored in FLOAT_FORMATS:
        return x.astype(np.float64)
    rows = []
    for row in x:
        q, scale = quantise(row)
        rows.append(q * np.repeat(scale.astype(np.float64), BLOCK)[: len(row)])
    return np.stack(rows)


def weights(values: npt.NDArray[np.generic], stored: str, columns: int) -> Floats:
    """float32 of rows as they are stored: floats, bfloat16 bits, or GGUF blocks."""
    if stored == "BF16":
        return (values.astype(np.uint32) << 16).view(np.float32)
    if stored in FLOAT_FORMATS:
        return values.astype(np.float32)
    floats = dequantize(values, gguf.GGMLQuantizationType[stored])
    return np.ascontiguousarray(floats[:, :columns], dtype=np.float32)


def magnitudes(values: npt.NDArray[np.generic], stored: str, floats: Floats) -> Floats:
    """What a product with these rows adds up, for each weight.

    Where a weight is a multiple less a minimum, that is both of them; a K-quant's minimum is one of 64 steps.
    """
    if stored not in _MINIMUM:
        return np.abs(floats)
    block, block_bytes, at, steps = _MINIMUM[stored]
    blocks = values.view(np.uint8).reshape(len(values), -1, block_bytes)
    scale = np.ascontiguousarray(blocks[..., at : at + 2]).view(np.float16)[..., 0]
    minimum = np.repeat(np.abs(scale.astype(np.float32)) * steps, block, axis=1)
    return np.abs(floats) + 2 * minimum[:, : floats.shape[1]]


# Weights and bytes of a block, where it has the minimum or its scale, and the largest multiple of that.
_MINIMUM = {"Q4_1": (32, 20, 2, 1), "Q4_K": (256, 144, 2, 63), "Q5_K": (256, 176, 2, 63)}


def linear(x: Floats, matrix: Floats, stored: str) -> Doubles:
    """``y[r, n] = sum_k input[r, k] * matrix[n, k]``."""
    return np.asarray(product_input(x, stored) @ matrix.T.astype(np.float64))


def swiglu(gate: Doubles, up: Doubles) -> Doubles:
    """``gate / (1 + exp(-gate)) * up`` (Shazeer, 2020)."""
    return np.asarray(gate / (1.0 + np.exp(-gate)) * up)


def rms_norm(x: Floats, weight: Floats, eps: float) -> Doubles:
    """``x / sqrt(mean(x^2) + eps) * weight`` (Zhang and Sennrich, 2019)."""
    wide = x.astype(np.float64)
    return np.asarray(wide / np.sqrt(np.mean(wide * wide) + eps) * weight)


def stored_kv(x: Floats, kv_dtype: str) -> Floats:
    """Keys or values as a cache of that type returns them."""
    if kv_dtype == "bf16":
        return round_bf16(x)
    return x.astype(np.float16).astype(np.float32) if kv_dtype == "fp16" else x


def attention(q: Floats, keys: Floats, values: Floats) -> Doubles:
    """Causal attention of the last rows of a context.

    q is (rows, heads, dim), keys and values are (context, kv heads, dim); row r of R sees the positions up to
    context - R + r. Query heads share key heads in groups.
    """
    rows, heads, dim = q.shape
    context, kv_heads, _ = keys.shape
    out = np.empty(q.shape, dtype=np.float64)
    visible = np.arange(context)[None, :] <= (context - rows + np.arange(rows))[:, None]
    for head in range(heads):
        shared = head // (heads // kv_heads)
        scores = q[:, head].astype(np.float64) @ keys[:, shared].T.astype(np.float64) / np.sqrt(dim)
        scores = np.where(visible, scores, -np.inf)
        weight = np.exp(scores - scores.max(axis=1, keepdims=True))
        weight /= weight.sum(axis=1, keepdims=True)
        out[:, head] = weight @ values[:, shared].astype(np.float64)
    return out
