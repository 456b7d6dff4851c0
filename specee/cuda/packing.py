"""int8 and int4 weights in the layout of specee/tiles.h, made with numpy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from specee.cuda.tiles import TILE_OUTPUTS, TILE_UNIT, ceil_div
from specee.errors import ConfigurationError


@dataclass(frozen=True)
class PackedWeights:
    """A matrix (outputs, k) in blocks of 32 along k.

    ``data`` (bytes,) uint8 and ``scales`` uint16, the bits of fp16, are laid out as tiles.h says.
    """

    stored: Literal["int8", "int4"]
    outputs: int
    k: int
    data: Any
    scales: Any


def pack_int8(q: npt.NDArray[np.int8], scales: npt.NDArray[np.float16]) -> PackedWeights:
    """``q`` (outputs, k) with weight = scale * q; ``scales`` (outputs, k / 32). Raises ConfigurationError."""
    outputs, k = _shape(q, scales)
    data = _fragments(q).transpose(0, 3, 2, 5, 4, 1, 6)  # tile, unit, group, member, half of k, side, byte
    packed = np.ascontiguousarray(data).view(np.uint8).reshape(-1)
    return PackedWeights("int8", outputs, k, packed, _scale_bits([scales]))


def pack_int4(
    q: npt.NDArray[np.uint8], scales: npt.NDArray[np.float16], minima: npt.NDArray[np.float16]
) -> PackedWeights:
    """``q`` (outputs, k), 0 to 15, with weight = scale * q + minimum; the others (outputs, k / 32).

    Raises ConfigurationError.
    """
    outputs, k = _shape(q, scales)
    if scales.shape != minima.shape or (q.size and int(q.max()) > 15):
        raise ConfigurationError(
            f"int4 weights up to {q.max(initial=0)} with scales {scales.shape} and minima {minima.shape}: "
            "allowed are 0..15 and equal shapes"
        )
    halves = _fragments(q).transpose(1, 0, 3, 2, 5, 4, 6)  # side first: the low and the high nibble
    packed = np.ascontiguousarray(halves[0] | halves[1] << 4).reshape(-1)
    return PackedWeights("int4", outputs, k, packed, _scale_bits([scales, minima]))


def unpack_int8(packed: PackedWeights) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float16]]:
    """What :func:`pack_int8` took, from arrays of numpy."""
    tiles, units = ceil_div(packed.outputs, TILE_OUTPUTS), packed.k // TILE_UNIT
    parts = np.asarray(packed.data).view(np.int8).reshape(tiles, units, 8, 4, 2, 2, 4)
    q = parts.transpose(0, 5, 2, 1, 4, 3, 6).reshape(tiles * TILE_OUTPUTS, packed.k)
    bits = np.asarray(packed.scales).view(np.float16).reshape(tiles, units, TILE_OUTPUTS)
    scales = bits.transpose(0, 2, 1).reshape(tiles * TILE_OUTPUTS, units)
    return np.ascontiguousarray(q[: packed.outputs]), np.ascontiguousarray(scales[: packed.outputs])


def _shape(q: npt.NDArray[Any], scales: npt.NDArray[Any]) -> tuple[int, int]:
    if q.ndim != 2 or q.shape[1] % TILE_UNIT or scales.shape != (q.shape[0], q.shape[1] // TILE_UNIT):
        raise ConfigurationError(
            f"weights {q.shape} with scales {scales.shape}: k must be a multiple of {TILE_UNIT}, with one "
            "scale for each block of it"
        )
    return q.shape[0], q.shape[1]


def _padded(matrix: npt.NDArray[Any]) -> npt.NDArray[Any]:
    tiles = ceil_div(len(matrix), TILE_OUTPUTS)
    return np.pad(matrix, ((0, tiles * TILE_OUTPUTS - len(matrix)), (0, 0)))


def _fragments(q: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """(tile, side, group, unit, half of k, member, byte): tiles.h's ``packed_place``, taken apart."""
    padded = _padded(q)
    return padded.reshape(len(padded) // TILE_OUTPUTS, 2, 8, q.shape[1] // TILE_UNIT, 2, 4, 4)


def _scale_bits(parts: list[npt.NDArray[np.float16]]) -> npt.NDArray[np.uint16]:
    """(tile, unit, part, output of the tile), flat."""
    tiles = [_padded(p.astype(np.float16)).reshape(-1, TILE_OUTPUTS, p.shape[1]) for p in parts]
    return np.ascontiguousarray(np.stack(tiles).transpose(1, 3, 0, 2)).view(np.uint16).reshape(-1)
