"""The weight table as the CUDA kernels take it: bf16 as checkpoints have it, int8 and int4 packed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from specee.backends.coverage import Coverage
from specee.cuda.attention import HEAD_DIMS
from specee.cuda.packing import PackedWeights, pack_int4, pack_int8
from specee.cuda.tiles import TILE_UNIT
from specee.errors import CheckpointError, ConfigurationError
from specee.models.blocks import row_bytes, widen
from specee.models.table import Key, Slab, matrices, shapes
from specee.types import ModelConfig, WeightFormat

WEIGHTS: tuple[WeightFormat, ...] = ("bf16", "int8", "int4")
Matrix = Tensor | PackedWeights
_PACKED = {"int8": "Q8_0", "int4": "Q4_1"}


def check_model(config: ModelConfig, weights: WeightFormat) -> None:
    """Raise ConfigurationError for formats and shapes that the kernels do not have."""
    if weights not in WEIGHTS:
        raise ConfigurationError(
            f"weights={weights!r} on backend 'cuda': allowed are {', '.join(map(repr, WEIGHTS))}; choose "
            "one of them, or backend='reference'"
        )
    widths = {"hidden_size": config.hidden_size, "intermediate_size": config.intermediate_size}
    if wrong := [name for name, width in widths.items() if width % TILE_UNIT]:
        raise ConfigurationError(
            f"{wrong[0]}={widths[wrong[0]]} on backend 'cuda': allowed are multiples of {TILE_UNIT}; use "
            "backend='reference'"
        )
    if config.head_dim not in HEAD_DIMS:
        raise ConfigurationError(
            f"head_dim={config.head_dim} on backend 'cuda': allowed are {HEAD_DIMS}; use backend='reference'"
        )


def bytes_of(config: ModelConfig, formats: Mapping[Key, str]) -> int:
    """Bytes of all tensors on the device, without what fills up tiles."""
    total = 0
    for key, shape in shapes(config).items():
        form = formats.get(key, "F32")
        width = shape[-1] if len(shape) > 1 else 1
        row = row_bytes(form, width) if form in ("Q8_0", "Q4_1") else width * (2 if form == "BF16" else 4)
        total += shape[0] * row
    return total


class CudaWeights:
    """All tensors of :func:`specee.models.table.shapes` on one device.

    Matrices are bf16 tensors or :class:`PackedWeights`, vectors fp32. ``given``: what is there already; a
    bf16 matrix on the device is used where it is, without a copy, and so are packed ones, which have to be
    there; any other tensor is converted. Raises CheckpointError when the slabs do not cover exactly what is
    not given.
    """

    def __init__(
        self,
        config: ModelConfig,
        slabs: Iterable[Slab],
        formats: Mapping[Key, str],
        device: torch.device,
        given: Mapping[Key, Matrix] | None = None,
    ) -> None:
        self._formats, self._device = formats, device
        self._shapes = shapes(config)
        self.tensors: dict[Key, Tensor] = {}
        self.packed: dict[Key, PackedWeights] = {}
        coverage = Coverage(config, formats)
        for key, one in (given or {}).items():
            if isinstance(one, PackedWeights):
                self.packed[key] = self._checked(key, one)
            else:
                self.tensors[key] = self._placed(key, one)
            coverage.whole(key)
        blocks: dict[Key, npt.NDArray[np.uint8]] = {}
        for slab in slabs:
            key, rows = coverage.add(slab)
            if formats.get(key, "F32") in ("Q8_0", "Q4_1"):
                shape = self._shapes[key]
                whole = blocks.setdefault(
                    key, np.empty((shape[0], row_bytes(formats[key], shape[1])), np.uint8)
                )
                whole[rows] = slab.array
                if coverage.is_whole(key):
                    self.packed[key] = on_device(packed_blocks(blocks.pop(key), formats[key]), device)
                continue
            self._tensor(key)[rows] = floats_of(slab, self._shapes[key][-1]).to(device)
        coverage.check()

    def _tensor(self, key: Key) -> Tensor:
        """The tensor that slabs of floats go to."""
        if key not in self.tensors:
            dtype = torch.bfloat16 if self._formats.get(key) == "BF16" else torch.float32
            self.tensors[key] = torch.empty(self._shapes[key], dtype=dtype, device=self._device)
        return self.tensors[key]

    def _placed(self, key: Key, tensor: Tensor) -> Tensor:
        """``tensor`` as it is, if kernels can read it there, else a copy that they can."""
        if tuple(tensor.shape) != self._shapes.get(key) or self._formats.get(key, "F32") not in (
            "BF16",
            "F32",
        ):
            raise CheckpointError(
                f"tensor {key[0]!r} of layer {key[1]}, {tuple(tensor.shape)}, cannot be used in place: "
                f"the table has {self._shapes.get(key)} stored {self._formats.get(key, 'F32')}"
            )
        dtype = torch.bfloat16 if self._formats.get(key) == "BF16" else torch.float32
        placed = tensor.detach().to(self._device, dtype).contiguous()
        return placed if placed.data_ptr() % 16 == 0 else placed.clone()

    def _checked(self, key: Key, packed: PackedWeights) -> PackedWeights:
        """``packed`` if it is the table's. Raises CheckpointError."""
        shape, form = (packed.outputs, packed.k), _PACKED[packed.stored]
        places = {packed.data.device, packed.scales.device}
        if places != {self._device}:
            raise CheckpointError(
                f"matrix {key[0]!r} of layer {key[1]} is packed on {', '.join(map(str, places))}: allowed is "
                f"{self._device}; put it there"
            )
        if shape != self._shapes.get(key) or form != self._formats.get(key):
            raise CheckpointError(
                f"matrix {key[0]!r} of layer {key[1]}, {shape} packed as {packed.stored}, cannot be used: "
                f"the table has {self._shapes.get(key)} stored {self._formats.get(key, 'F32')}"
            )
        return packed

    def vector(self, role: str, layer: int = -1) -> Tensor:
        """A norm, (size,) fp32."""
        return self.tensors[role, layer]

    def maybe(self, role: str, layer: int) -> Tensor | None:
        """Like :meth:`vector`, None when the model has no such tensor."""
        return self.tensors.get((role, layer))

    def matrix(self, role: str, layer: int = -1) -> Matrix:
        """A matrix for :func:`specee.cuda.products.multiply`."""
        key = (role, layer)
        return self.packed[key] if key in self.packed else self.tensors[key]

    @property
    def head_key(self) -> Key:
        """Which matrix is the output matrix: its own or the embedding."""
        return ("head", -1) if ("head", -1) in self._shapes else ("embed", -1)

    @property
    def weight_bytes(self) -> int:
        """Bytes of all tensors that a decoding step reads: all but an embedding with a head of its own."""
        read = [key for key in self._shapes if key[0] != "embed" or self.head_key == key]
        return sum(_bytes(self.matrix(*key)) for key in read)

    @property
    def head_bytes(self) -> int:
        """Bytes of the output matrix."""
        return _bytes(self.matrix(*self.head_key))


def bytes_there(given: Mapping[Key, Matrix], device: torch.device) -> int:
    """Of what is on the device already."""
    parts = (one.data if isinstance(one, PackedWeights) else one for one in given.values())
    return sum(_bytes(one) for part, one in zip(parts, given.values(), strict=True) if part.device == device)


def quantises(config: ModelConfig, formats: Mapping[Key, str]) -> bool:
    """Whether rows that enter products are quantised rather than rounded; of one kind in all formats here."""
    return any(formats[key] != "BF16" for key in matrices(config))


def floats_of(slab: Slab, columns: int) -> Tensor:
    """A slab of floats as a tensor on the host; bf16 without a detour."""
    if slab.format == "BF16":
        return torch.from_numpy(slab.array.view(np.int16).copy()).view(torch.bfloat16)
    return torch.from_numpy(np.array(widen(slab.array, slab.format, columns), copy=True))


def packed_blocks(rows: npt.NDArray[np.uint8], form: str) -> PackedWeights:
    """Block rows of Q8_0 or Q4_1 in the layout of the kernels, in numpy."""
    size = row_bytes(form, 1)
    blocks = np.ascontiguousarray(rows).reshape(len(rows), -1, size)
    scales = np.ascontiguousarray(blocks[:, :, :2]).view(np.float16)[:, :, 0]
    if form == "Q8_0":
        q = np.ascontiguousarray(blocks[:, :, 2:]).view(np.int8)
        return pack_int8(q.reshape(len(rows), -1), scales)
    minima = np.ascontiguousarray(blocks[:, :, 2:4]).view(np.float16)[:, :, 0]
    low, high = blocks[:, :, 4:] & 15, blocks[:, :, 4:] >> 4
    return pack_int4(np.concatenate([low, high], axis=2).reshape(len(rows), -1), scales, minima)


def on_device(packed: PackedWeights, device: torch.device) -> PackedWeights:
    """The same in tensors of ``device``."""
    data = torch.from_numpy(np.ascontiguousarray(packed.data)).to(device)
    scales = torch.from_numpy(np.ascontiguousarray(packed.scales).view(np.int16)).to(device)
    return replace(packed, data=data, scales=scales)


def on_host(packed: PackedWeights) -> PackedWeights:
    """The same in arrays of numpy."""
    return replace(packed, data=packed.data.cpu().numpy(), scales=packed.scales.cpu().numpy().view(np.uint16))


def _bytes(matrix: Any) -> int:
    if isinstance(matrix, PackedWeights):
        return _bytes(matrix.data) + _bytes(matrix.scales)
    return int(matrix.numel() * matrix.element_size())
