"""GGUF's quantised formats for tests: random blocks, and what is in them.

A group of weights of one row shares ``scale`` and ``offset``: weight = scale * q + offset with small
integers q. :func:`parts` takes blocks apart into these, which is what a kernel multiplies, and
``tests/models/test_blocks.py`` holds it against the gguf package to the bit.
"""

from __future__ import annotations

from dataclasses import dataclass

import gguf
import numpy as np
from gguf.quants import dequantize, quantize

KINDS = ("Q4_0", "Q4_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K")
BLOCK = {"Q4_0": 32, "Q4_1": 32, "Q8_0": 32, "Q4_K": 256, "Q5_K": 256, "Q6_K": 256}
BYTES = {"Q4_0": 18, "Q4_1": 20, "Q8_0": 34, "Q4_K": 144, "Q5_K": 176, "Q6_K": 210}
# Where a block has its fp16 scales; all other bytes may be anything.
SCALES = {"Q4_0": [0], "Q4_1": [0, 2], "Q8_0": [0], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208]}
# d and dmin of random K-quant blocks of unit deviation around zero: 6-bit scales and minima have mean 31.5,
# q means 7.5 and 15.5; Q6_K has 8-bit signed scales and q within +-32.
_UNIT = {"Q4_K": (1 / 200, 7.5 / 200), "Q5_K": (1 / 400, 15.5 / 400), "Q6_K": (1 / 1370,)}


@dataclass(frozen=True)
class Parts:
    """q (rows, groups, group size); scale and offset (rows, groups) in fp32, the latter None if absent."""

    q: np.ndarray
    scale: np.ndarray
    offset: np.ndarray | None

    def weights(self) -> np.ndarray:
        """(rows, columns) fp32, rounded as the gguf package rounds: after each operation."""
        scaled = self.scale[..., None] * self.q.astype(np.float32)
        return (scaled if self.offset is None else scaled + self.offset[..., None]).reshape(len(self.q), -1)


def from_floats(rows: np.ndarray, kind: str) -> np.ndarray:
    """Rows quantised by the gguf package, zeros filling the last block."""
    padded = np.pad(rows.astype(np.float32), ((0, 0), (0, -rows.shape[1] % BLOCK[kind])))
    return quantize(padded, gguf.GGMLQuantizationType[kind])


def to_floats(blocks: np.ndarray, kind: str, columns: int) -> np.ndarray:
    """The gguf package's values of block rows."""
    with np.errstate(all="ignore"):
        return dequantize(blocks, gguf.GGMLQuantizationType[kind])[:, :columns]


def random_rows(rng: np.random.Generator, rows: int, columns: int, kind: str, gain: float) -> np.ndarray:
    """Block rows of weights of deviation ``gain``; K-quants, which gguf cannot make, from random bytes."""
    if kind not in _UNIT:
        return from_floats(rng.normal(0.0, gain, (rows, columns)), kind)
    assert columns % 256 == 0
    blocks = rng.integers(0, 256, (rows, columns // 256, BYTES[kind]), dtype=np.uint8)
    for at, unit in zip(SCALES[kind], _UNIT[kind], strict=True):
        put_scales(blocks, at, gain * unit * rng.uniform(0.7, 1.3, blocks.shape[:2]))
    return blocks.reshape(rows, -1)


def any_rows(rng: np.random.Generator, rows: int, columns: int, kind: str) -> np.ndarray:
    """Block rows of random bytes whose scales are any finite fp16: zeros, subnormals, of both signs."""
    blocks = rng.integers(0, 256, (rows, columns // BLOCK[kind], BYTES[kind]), dtype=np.uint8)
    for at in SCALES[kind]:
        bits = rng.integers(0, 0x7C00, blocks.shape[:2]) | (rng.integers(0, 2, blocks.shape[:2]) << 15)
        bits[0, 0] = 0x8000
        bits[-1, -1] = 0x7BFF
        put_scales(blocks, at, bits.astype(np.uint16).view(np.float16))
    return blocks.reshape(rows, -1)


def put_scales(blocks: np.ndarray, at: int, values: np.ndarray) -> None:
    """Write fp16 ``values`` (rows, blocks) at byte ``at`` of every block of (rows, blocks, bytes)."""
    blocks[..., at : at + 2] = values.astype(np.float16)[..., None].view(np.uint8)


def parts(blocks: np.ndarray, kind: str) -> Parts:
    """Take block rows (rows, row bytes) apart."""
    raw = blocks.reshape(len(blocks), -1, BYTES[kind])
    take = {"Q4_0": _q4_0, "Q4_1": _q4_1, "Q8_0": _q8_0, "Q4_K": _q4_k, "Q5_K": _q5_k, "Q6_K": _q6_k}[kind]
    q, scale, offset = take(raw)
    rows, group = len(blocks), 16 if kind == "Q6_K" else 32
    return Parts(
        q.astype(np.int32).reshape(rows, -1, group),
        scale.reshape(rows, -1),
        None if offset is None else offset.reshape(rows, -1),
    )


_Taken = tuple[np.ndarray, np.ndarray, np.ndarray | None]


def _half(raw: np.ndarray, at: int) -> np.ndarray:
    return np.ascontiguousarray(raw[..., at : at + 2]).view(np.float16).astype(np.float32)


def _nibbles(packed: np.ndarray, run: int) -> np.ndarray:
    """Runs of ``run`` bytes: their low nibbles, then their high ones."""
    runs = packed.reshape(*packed.shape[:-1], -1, run)
    return np.stack([runs & 15, runs >> 4], axis=-2).reshape(*packed.shape[:-1], -1)


def _q4_0(raw: np.ndarray) -> _Taken:
    return _nibbles(raw[..., 2:], 16).astype(np.int32) - 8, _half(raw, 0), None


def _q4_1(raw: np.ndarray) -> _Taken:
    return _nibbles(raw[..., 4:], 16), _half(raw, 0), _half(raw, 2)


def _q8_0(raw: np.ndarray) -> _Taken:
    return np.ascontiguousarray(raw[..., 2:]).view(np.int8), _half(raw, 0), None


def _six_bits(raw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eight scales times d, and eight minima times -dmin. Twelve bytes: the first four scales and minima in
    the low six bits of bytes 0-3 and 4-7, whose top two bits complete the nibbles of bytes 8-11."""
    low, mid, high = raw[..., 4:8], raw[..., 8:12], raw[..., 12:16]
    sc = np.concatenate([low & 63, (high & 15) | (low >> 6 << 4)], axis=-1)
    m = np.concatenate([mid & 63, (high >> 4) | (mid >> 6 << 4)], axis=-1)
    return _half(raw, 0) * sc.astype(np.float32), -(_half(raw, 2) * m.astype(np.float32))


def _q4_k(raw: np.ndarray) -> _Taken:
    return _nibbles(raw[..., 16:], 32), *_six_bits(raw)


def _q5_k(raw: np.ndarray) -> _Taken:
    fifth = (raw[..., None, 16:48] >> np.arange(8, dtype=np.uint8)[:, None]) & 1
    return _nibbles(raw[..., 48:], 32) + 16 * fifth.reshape(*raw.shape[:-1], 256), *_six_bits(raw)


def _q6_k(raw: np.ndarray) -> _Taken:
    high = raw[..., 128:192].reshape(*raw.shape[:-1], 2, 1, 32) >> np.arange(0, 8, 2, dtype=np.uint8)[:, None]
    q = _nibbles(raw[..., :128], 64).astype(np.int32) + 16 * (high & 3).reshape(*raw.shape[:-1], 256) - 32
    sc = np.ascontiguousarray(raw[..., 192:208]).view(np.int8).astype(np.float32)
    return q, _half(raw, 208) * sc, None
