"""Rows of weights in GGUF's formats: plain floats, and blocks of small integers that share a scale.

A quantised row is a run of blocks, uint8 (rows, row_bytes). The ``gguf`` package defines what the bytes
mean; its arithmetic is used, so values agree with it to the bit. It is imported when it is needed: models
of plain floats, and ``import specee``, do without.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = (
    npt.NDArray[np.float32] | npt.NDArray[np.float16] | npt.NDArray[np.uint16] | npt.NDArray[np.uint8]
)
Floats: TypeAlias = npt.NDArray[np.float32]
Bytes: TypeAlias = npt.NDArray[np.uint8]

FLOATS: dict[str, npt.DTypeLike] = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}
"""Formats of plain floats, and how numpy holds them; BF16 as bit patterns."""

QUANTISED: dict[str, slice] = {
    "Q4_0": slice(0, 2),
    "Q4_1": slice(0, 4),
    "Q8_0": slice(0, 2),
    "Q4_K": slice(0, 4),
    "Q5_K": slice(0, 4),
    "Q6_K": slice(208, 210),
}
"""Quantised formats that can be computed with, and where a block has its fp16 scales."""


def dtype_of(form: str) -> np.dtype[np.generic]:
    """What numpy holds an array of that format in."""
    return np.dtype(FLOATS.get(form, np.uint8))


def block_size(form: str) -> int:
    """Weights of one block."""
    return _sizes(form)[0]


def row_bytes(form: str, columns: int) -> int:
    """Bytes of a row of a quantised format: whole blocks, the last one padded."""
    weights, size = _sizes(form)
    return -(-columns // weights) * size


def _sizes(form: str) -> tuple[int, int]:
    """Weights and bytes of one block."""
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    weights, size = GGML_QUANT_SIZES[GGMLQuantizationType[form]]
    return int(weights), int(size)


def quantise(rows: Floats, form: str) -> Bytes:
    """Float rows in blocks of ``form``; zeros fill up the last block of a row.

    A scale beyond fp16 becomes infinite and one below it zero: :func:`scales` shows.
    """
    from gguf.constants import GGMLQuantizationType
    from gguf.quants import quantize

    short = -rows.shape[1] % block_size(form)
    padded = np.pad(rows, ((0, 0), (0, short))) if short else np.ascontiguousarray(rows)
    with np.errstate(all="ignore"):
        return np.asarray(quantize(padded, GGMLQuantizationType[form]), dtype=np.uint8)


def dequantise(rows: Bytes, form: str, columns: int) -> Floats:
    """Float values of block rows, padding left out; any type that gguf knows."""
    from gguf.constants import GGMLQuantizationType
    from gguf.quants import dequantize

    # Scales of damaged blocks overflow; the finiteness check reports them with their place.
    with np.errstate(all="ignore"):
        floats = np.asarray(dequantize(rows, GGMLQuantizationType[form]), dtype=np.float32)
    return np.ascontiguousarray(floats[:, :columns])


def widen(array: Array, form: str, columns: int) -> Floats:
    """float32 of any format: a bfloat16 is the upper half of a float32. ``columns`` is for block rows."""
    if form == "BF16":
        return (array.astype(np.uint32) << 16).view(np.float32)
    if form in FLOATS:
        return np.ascontiguousarray(array, dtype=np.float32)
    return dequantise(array.view(np.uint8), form, columns)


def scales(rows: Bytes, form: str) -> npt.NDArray[np.float16]:
    """The fp16 scales of block rows: (rows, blocks, 1 or 2).

    They tell whether values are finite: fp16 times the integers of a block cannot leave fp32.
    """
    size = row_bytes(form, 1)
    blocks = rows.reshape(len(rows), -1, size)[:, :, QUANTISED[form]]
    return np.ascontiguousarray(blocks).view(np.float16)
