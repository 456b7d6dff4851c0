"""Random weights in every stored format, made fast: an 8B head has half a billion of them."""

from __future__ import annotations

from collections.abc import Iterator

import gguf
import numpy as np
import numpy.typing as npt
from gguf.constants import GGML_QUANT_SIZES

from .references import FLOAT_FORMATS

Stored = npt.NDArray[np.float32] | npt.NDArray[np.float16] | npt.NDArray[np.uint16] | npt.NDArray[np.uint8]

# fp16 scales of a block: the byte they are at, and their size where weights have deviation 1. The integers of
# 4 and 5 bits are positive: a minimum or an offset takes their mean away.
_SCALES: dict[str, tuple[tuple[int, float], ...]] = {
    "Q4_0": ((0, 1 / 4.6),),
    "Q4_1": ((0, 1 / 4.6), (2, -7.5 / 4.6)),
    "Q8_0": ((0, 1 / 74),),
    "Q4_K": ((0, 1 / 200), (2, 7.5 / 200)),
    "Q5_K": ((0, 1 / 400), (2, 15.5 / 400)),
    "Q6_K": ((208, 1 / 1370),),
}


def random_rows(rng: np.random.Generator, rows: int, columns: int, stored: str, deviation: float) -> Stored:
    """Rows of normal weights, or of blocks with random integers and scales that differ by a third."""
    if stored in FLOAT_FORMATS:
        values = rng.standard_normal((rows, columns), dtype=np.float32)
        values *= np.float32(deviation)
        if stored == "F32":
            return values
        return (
            values.astype(np.float16) if stored == "F16" else (values.view(np.uint32) >> 16).astype(np.uint16)
        )
    block, block_bytes = GGML_QUANT_SIZES[gguf.GGMLQuantizationType[stored]]
    count = rows * (-(-columns // block))
    data = np.frombuffer(rng.bytes(count * block_bytes), dtype=np.uint8).reshape(count, block_bytes).copy()
    spread = rng.uniform(0.7, 1.3, count)
    for at, unit in _SCALES[stored]:
        data[:, at : at + 2] = (deviation * unit * spread).astype(np.float16)[:, None].view(np.uint8)
    return data.reshape(rows, -1)


def slabs(rows: int, columns: int, most: int = 1 << 23) -> Iterator[tuple[int, int]]:
    """Ranges of rows of at most ``most`` weights."""
    step = max(1, most // columns)
    for begin in range(0, rows, step):
        yield begin, min(begin + step, rows)
