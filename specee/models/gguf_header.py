"""The header of a GGUF file: metadata and tensor directory, parsed with every size checked first.

Layout (version 2 and 3, little endian): magic, u32 version, u64 tensor count, u64 metadata count; each
metadata entry is key, u32 type, value; each tensor is name, u32 rank, u64 dims (fastest first), u32
type, u64 offset from the data section, which starts at the next multiple of ``general.alignment``.

Written out because the ``gguf`` package's reader keeps two mapped arrays for every string: 160 MB and
2.7 s for a vocabulary of 49152. Its constants and its dequantisation are used.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGUF_DEFAULT_ALIGNMENT, GGMLQuantizationType

from specee.errors import CheckpointError, UnsupportedModelError

_SCALARS = {
    0: "<u1",
    1: "<i1",
    2: "<u2",
    3: "<i2",
    4: "<u4",
    5: "<i4",
    6: "<f4",
    7: "?",
    10: "<u8",
    11: "<i8",
    12: "<f8",
}
_STRING, _ARRAY = 8, 9
_MAX_RANK = 4


@dataclass(frozen=True)
class GGUFTensor:
    """One tensor: ``shape`` slowest dimension first, ``offset`` and ``size`` in bytes of the file."""

    name: str
    shape: tuple[int, ...]
    type: GGMLQuantizationType
    offset: int
    size: int


@dataclass(frozen=True)
class GGUFHeader:
    """Metadata (scalars, strings, lists of strings, numpy arrays) and tensors by name."""

    path: Path
    metadata: dict[str, Any]
    tensors: dict[str, GGUFTensor]


def read_header(path: Path) -> GGUFHeader:
    """Parse and check the header; no tensor data is read.

    Raises CheckpointError for anything that is not a complete, consistent GGUF file, and
    UnsupportedModelError for other versions, byte orders and tensor types.
    """
    try:
        size = path.stat().st_size
        with path.open("rb", buffering=1 << 20) as file:
            return _Parser(file, size, path).header()
    except OSError as error:
        raise CheckpointError(
            f"{path}: cannot be read ({error}). Check the file and its permissions."
        ) from error


class _Parser:
    def __init__(self, file: BinaryIO, size: int, path: Path) -> None:
        self.file, self.size, self.path, self.at = file, size, path, 0

    def header(self) -> GGUFHeader:
        self._start()
        tensor_count, metadata_count = self._u64(), self._u64()
        # The smallest entries: key length, type, one byte; name length, rank, type, offset.
        self._expect(
            13 * metadata_count + 24 * tensor_count, f"{metadata_count} entries and {tensor_count} tensors"
        )
        metadata: dict[str, Any] = {}
        for _ in range(metadata_count):
            key = self._string()
            if key in metadata:
                raise self._damaged(f"metadata key {key!r} appears twice")
            metadata[key] = self._value(self._u32(), key)
        directory = [self._tensor() for _ in range(tensor_count)]
        tensors = self._place(directory, self._alignment(metadata))
        check_overlap(tensors.values(), self.path)
        return GGUFHeader(self.path, metadata, tensors)

    def _start(self) -> None:
        magic = self._bytes(4, "the magic number")
        if magic != b"GGUF":
            raise self._damaged(f"it starts with {magic!r}, a GGUF file with b'GGUF'")
        version = self._u32()
        if version not in (2, 3):
            what = "big-endian" if version & 0xFFFF == 0 else f"version {version}"
            raise UnsupportedModelError(
                f"{self.path}: {what} GGUF is not supported; little-endian 2 and 3 are."
            )

    def _value(self, kind: int, key: str) -> Any:
        if kind == _STRING:
            return self._string()
        if kind in _SCALARS:
            return self._array(kind, 1)[0].item()
        if kind != _ARRAY:
            raise self._damaged(f"metadata {key!r} has type {kind}; known types are 0 to 12")
        kind, count = self._u32(), self._u64()
        if kind == _STRING:
            self._expect(8 * count, f"{count} strings of {key!r}")
            return [self._string() for _ in range(count)]
        if kind not in _SCALARS:
            raise self._damaged(f"metadata {key!r} is an array of type {kind}; strings and scalars are known")
        return self._array(kind, count)

    def _tensor(self) -> tuple[str, tuple[int, ...], int, int]:
        name, rank = self._string(), self._u32()
        if not 1 <= rank <= _MAX_RANK:
            raise self._damaged(f"tensor {name!r} has {rank} dimensions; 1 to {_MAX_RANK} are allowed")
        dims = tuple(self._u64() for _ in range(rank))
        return name, dims[::-1], self._u32(), self._u64()

    def _place(
        self, directory: list[tuple[str, tuple[int, ...], int, int]], alignment: int
    ) -> dict[str, GGUFTensor]:
        begin = -(-self.at // alignment) * alignment
        tensors: dict[str, GGUFTensor] = {}
        for name, shape, kind, offset in directory:
            if name in tensors:
                raise self._damaged(f"tensor {name!r} appears twice")
            if kind not in GGMLQuantizationType._value2member_map_:
                raise UnsupportedModelError(f"{self.path}: tensor {name!r} has unknown type {kind}.")
            type_ = GGMLQuantizationType(kind)
            block, block_bytes = GGML_QUANT_SIZES[type_]
            if 0 in shape or shape[-1] % block:
                raise self._damaged(
                    f"tensor {name!r} of {type_.name} has shape {shape}; rows come in blocks of {block}"
                )
            size = prod(shape) // block * block_bytes
            if offset % alignment or begin + offset + size > self.size:
                raise self._damaged(
                    f"tensor {name!r} should be at bytes {begin + offset} to {begin + offset + size} "
                    f"(alignment {alignment}), the file has {self.size}"
                )
            tensors[name] = GGUFTensor(name, shape, type_, begin + offset, size)
        return tensors

    def _alignment(self, metadata: dict[str, Any]) -> int:
        alignment = metadata.get("general.alignment", GGUF_DEFAULT_ALIGNMENT)
        if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
            raise self._damaged(f"general.alignment is {alignment!r}; it must be a power of two")
        return alignment

    def _array(self, kind: int, count: int) -> np.ndarray[Any, np.dtype[Any]]:
        dtype = np.dtype(_SCALARS[kind])
        return np.frombuffer(self._bytes(count * dtype.itemsize, f"an array of {count}"), dtype=dtype)

    def _string(self) -> str:
        data = self._bytes(self._u64(), "a string")
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise self._damaged(f"a string before byte {self.at} is not UTF-8 ({error})") from error

    def _u32(self) -> int:
        return int(struct.unpack("<I", self._bytes(4, "a number"))[0])

    def _u64(self) -> int:
        return int(struct.unpack("<Q", self._bytes(8, "a number"))[0])

    def _bytes(self, count: int, what: str) -> bytes:
        self._expect(count, what)
        data = self.file.read(count)
        if len(data) < count:
            raise self._damaged(f"it ends within {what} at byte {self.at}")
        self.at += count
        return data

    def _expect(self, count: int, what: str) -> None:
        """Raise before anything is allocated if ``count`` more bytes cannot be in the file."""
        if count > self.size - self.at:
            raise self._damaged(f"{what} at byte {self.at} needs {count} bytes, but the file has {self.size}")

    def _damaged(self, what: str) -> CheckpointError:
        return CheckpointError(f"{self.path}: not a usable GGUF file: {what}. Fetch the file again.")


def check_overlap(tensors: Iterable[GGUFTensor], path: Path) -> None:
    """Raise CheckpointError if two tensors share bytes of the file."""
    ordered = sorted(tensors, key=lambda tensor: tensor.offset)
    for first, second in pairwise(ordered):
        if first.offset + first.size > second.offset:
            raise CheckpointError(
                f"{path}: not a usable GGUF file: tensors {first.name!r} and {second.name!r} overlap at byte "
                f"{second.offset}. Fetch the file again."
            )
