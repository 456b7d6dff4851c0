"""Where tensors come from: one protocol for safetensors, GGUF and models in memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from specee.errors import CheckpointError
from specee.models.blocks import Array


@dataclass(frozen=True)
class TensorInfo:
    """One tensor of a source: logical shape, element format in the file's own words, and the file."""

    shape: tuple[int, ...]
    dtype: str
    where: str


class TensorSource(Protocol):
    """Named tensors that can be read a few rows at a time."""

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """Every tensor, known without reading any tensor data."""

    def read(self, name: str, begin: int, end: int) -> Array:
        """Rows ``begin .. end`` of a tensor as they are stored, C-contiguous.

        float32, float16, or uint16 with bfloat16 bits; uint8 (rows, row_bytes) for every other dtype.
        Raises CheckpointError if the file no longer holds them.
        """


def read_exactly(path: Path, offset: int, count: int) -> npt.NDArray[np.uint8]:
    """``count`` bytes of a file at ``offset``, as a fresh uint8 array.

    Plain reads, no mapping: pages of a mapped checkpoint would count as resident memory.
    Raises CheckpointError if the file ends earlier or cannot be read.
    """
    buffer = np.empty(count, dtype=np.uint8)
    try:
        with path.open("rb", buffering=0) as file:
            file.seek(offset)
            view, filled = buffer.data, 0
            while filled < count and (got := file.readinto(view[filled:])):
                filled += got
            size = file.seek(0, 2)
    except OSError as error:
        raise CheckpointError(
            f"{path}: cannot be read ({error}). Check the file and its permissions."
        ) from error
    if filled < count:
        raise CheckpointError(
            f"{path}: ends after {size} bytes where {offset + count} are needed. "
            "The file was truncated or changed while loading; fetch it again."
        )
    return buffer
