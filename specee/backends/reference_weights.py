"""The weight table as torch tensors: matrices in the weight format, vectors in fp32."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from specee.errors import CheckpointError
from specee.models.table import Slab, shapes
from specee.types import ModelConfig, WeightFormat


class ReferenceWeights:
    """All tensors of :func:`specee.models.table.shapes` on one device.

    Matrices are kept in ``weights`` (bf16 by rounding to nearest even); norms and biases stay fp32 in
    both formats. Raises CheckpointError when the slabs do not cover each tensor exactly once.
    """

    def __init__(
        self, config: ModelConfig, slabs: Iterable[Slab], weights: WeightFormat, device: torch.device
    ) -> None:
        self._shapes = shapes(config)
        matrix = torch.bfloat16 if weights == "bf16" else torch.float32
        self._tensors = {
            key: torch.empty(shape, dtype=matrix if len(shape) == 2 else torch.float32, device=device)
            for key, shape in self._shapes.items()
        }
        covered = dict.fromkeys(self._shapes, 0)
        for slab in slabs:
            self._store(slab, covered)
        short = [key for key, rows in covered.items() if rows != self._shapes[key][0]]
        if short:
            role, layer = short[0]
            wanted = self._shapes[role, layer][0]
            raise CheckpointError(
                f"tensor {role!r} of layer {layer}: got {covered[role, layer]} rows of {wanted} "
                f"({len(short)} tensors incomplete); the checkpoint must cover every tensor exactly once"
            )

    def _store(self, slab: Slab, covered: dict[tuple[str, int], int]) -> None:
        key = (slab.role, slab.layer)
        shape = self._shapes.get(key)
        end = slab.row_begin + len(slab.array)
        if shape is None or slab.array.shape[1:] != shape[1:] or slab.row_begin < 0 or end > shape[0]:
            raise CheckpointError(
                f"slab {slab.role!r} of layer {slab.layer}, rows {slab.row_begin}..{end}, shape "
                f"{slab.array.shape} does not fit the table, which has {shape}"
            )
        self._tensors[key][slab.row_begin : end] = _as_float(slab.array).to(self._tensors[key].device)
        covered[key] += len(slab.array)

    def get(self, role: str, layer: int = -1) -> Tensor:
        """The tensor widened to fp32; the format decides only what values it can hold."""
        return self._tensors[role, layer].to(torch.float32)

    def maybe(self, role: str, layer: int) -> Tensor | None:
        """Like :meth:`get`, None when the model has no such tensor."""
        return self.get(role, layer) if (role, layer) in self._tensors else None

    def embedding(self, token: int) -> Tensor:
        """Row ``token`` of the embedding: (hidden_size,) fp32."""
        return self._tensors["embed", -1][token].to(torch.float32)

    def head(self) -> Tensor:
        """The output matrix, (vocab_size, hidden_size) fp32: its own or the embedding's."""
        return self.get("head") if ("head", -1) in self._tensors else self.get("embed")

    @property
    def weight_bytes(self) -> int:
        """Bytes of all tensors that a decoding step reads: all but an embedding with a head of its own."""
        read = (
            t for key, t in self._tensors.items() if key[0] != "embed" or ("head", -1) not in self._tensors
        )
        return sum(tensor.numel() * tensor.element_size() for tensor in read)


def _as_float(array: npt.NDArray[Any]) -> Tensor:
    """A slab's array as fp32: uint16 holds bfloat16 bit patterns, the upper half of an fp32."""
    if array.dtype == np.uint16:
        return torch.from_numpy((array.astype(np.uint32) << 16).view(np.float32))
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32).copy())
