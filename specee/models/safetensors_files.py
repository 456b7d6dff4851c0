"""safetensors files, single or sharded, read by offset.

The library parses and validates the header; the data is then read with plain reads, because a
mapped checkpoint would count as resident memory, and because its numpy interface has no bfloat16.
Format: 8-byte little-endian header length, JSON header {name: {dtype, shape, data_offsets}}, data.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors

from specee.errors import CheckpointError
from specee.models.blocks import Array, dtype_of
from specee.models.source import TensorInfo, read_exactly

_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"


@dataclass(frozen=True)
class _Place:
    path: Path
    offset: int


class SafetensorsSource:
    """All tensors of a folder's safetensors files (a TensorSource)."""

    def __init__(self, folder: Path) -> None:
        """Read the headers. Raises CheckpointError for missing, truncated or damaged files."""
        self._infos: dict[str, TensorInfo] = {}
        self._places: dict[str, _Place] = {}
        for path, expected in _files(folder).items():
            self._add(path, expected)

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """Every tensor of every file."""
        return self._infos

    def read(self, name: str, begin: int, end: int) -> Array:
        """Rows ``begin .. end``; see :class:`specee.models.source.TensorSource`."""
        info, place = self._infos[name], self._places[name]
        dtype = dtype_of(info.dtype)
        row = int(np.prod(info.shape[1:], dtype=np.int64)) * dtype.itemsize
        data = read_exactly(place.path, place.offset + begin * row, (end - begin) * row)
        return data.view(dtype).reshape(end - begin, *info.shape[1:])

    def _add(self, path: Path, expected: set[str] | None) -> None:
        header = _header(path)
        if expected is not None and (lost := sorted(expected - header.keys())):
            raise CheckpointError(
                f"{path}: tensor {lost[0]!r} ({len(lost)} in all) should be in this file according to "
                f"{_INDEX}, but is not. Shards of different checkpoints were mixed; fetch all of them again."
            )
        data_begin = 8 + int.from_bytes(read_exactly(path, 0, 8).tobytes(), "little")
        for name, entry in header.items():
            if name in self._infos:
                raise CheckpointError(
                    f"{path}: tensor {name!r} is also in {self._infos[name].where}; each may be stored once."
                )
            self._infos[name] = TensorInfo(tuple(entry["shape"]), entry["dtype"], str(path))
            self._places[name] = _Place(path, data_begin + entry["data_offsets"][0])


def _header(path: Path) -> dict[str, dict[str, Any]]:
    try:
        # Opening validates all of it: header length, JSON, overlap and gaps of offsets, file size.
        with safetensors.safe_open(path, framework="numpy"):
            pass
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{path}: not a complete safetensors file ({error}). It is truncated or damaged; fetch it again."
        ) from error
    length = int.from_bytes(read_exactly(path, 0, 8).tobytes(), "little")
    header: dict[str, dict[str, Any]] = json.loads(read_exactly(path, 8, length).tobytes())
    header.pop("__metadata__", None)
    return header


def _files(folder: Path) -> dict[Path, set[str] | None]:
    """Files to read, each with the tensors the index promises in it (None without an index)."""
    if (folder / _SINGLE).is_file():
        return {folder / _SINGLE: None}
    index = folder / _INDEX
    if not index.is_file():
        raise CheckpointError(_nothing_found(folder))
    try:
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        shards: dict[Path, set[str] | None] = {}
        for name, file in weight_map.items():
            names = shards.setdefault(_shard(folder, file), set())
            assert names is not None
            names.add(name)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{index}: not a usable shard index ({error!r}). Fetch it again.") from error
    for path in shards:
        if not path.is_file():
            raise CheckpointError(
                f"{path}: this shard is missing; {_INDEX} names {len(shards)} shards. Fetch it."
            )
    return shards


def _shard(folder: Path, file: str) -> Path:
    # A name with folders in it could point outside the checkpoint.
    if Path(file).name != file:
        raise ValueError(f"shard name {file!r} is not a plain file name")
    return folder / file


def _nothing_found(folder: Path) -> str:
    pickled = sorted(path.name for path in folder.glob("*.bin"))
    found = (
        f" It has {pickled[0]}, a pickled format that is not read; convert it to safetensors."
        if pickled
        else ""
    )
    return f"{folder}: has neither {_SINGLE} nor {_INDEX}.{found or ' Point to a folder with the weights.'}"
