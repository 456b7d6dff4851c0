"""The weight table as torch tensors: matrices with the values of their stored formats, vectors in fp32."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from specee.backends.coverage import Coverage
from specee.backends.reference_math import Matrix
from specee.models.blocks import widen
from specee.models.table import Key, Slab, shapes
from specee.types import ModelConfig

_DTYPES = {"BF16": torch.bfloat16, "F16": torch.float16}


class ReferenceWeights:
    """All tensors of :func:`specee.models.table.shapes` on one device.

    ``formats`` says what every matrix is stored in. Floats are rounded to it, to nearest even; quantised
    matrices come in its blocks and are kept as the fp32 values they stand for. Norms and biases are
    fp32. Raises CheckpointError when the slabs do not cover each tensor exactly once.
    """

    def __init__(
        self, config: ModelConfig, slabs: Iterable[Slab], formats: Mapping[Key, str], device: torch.device
    ) -> None:
        self._formats = formats
        self._tensors = {
            key: torch.empty(shape, dtype=_DTYPES.get(formats.get(key, "F32"), torch.float32), device=device)
            for key, shape in shapes(config).items()
        }
        coverage = Coverage(config, formats)
        for slab in slabs:
            key, rows = coverage.add(slab)
            values = torch.tensor(widen(slab.array, slab.format, self._tensors[key].shape[-1]))
            self._tensors[key][rows] = values.to(device)
        coverage.check()

    def get(self, role: str, layer: int = -1) -> Tensor:
        """The tensor in fp32; the format decides only what values it can hold."""
        return self._tensors[role, layer].to(torch.float32)

    def maybe(self, role: str, layer: int) -> Tensor | None:
        """Like :meth:`get`, None when the model has no such tensor."""
        return self.get(role, layer) if (role, layer) in self._tensors else None

    def embedding(self, token: int) -> Tensor:
        """Row ``token`` of the embedding: (hidden_size,) fp32."""
        return self._tensors["embed", -1][token].to(torch.float32)

    def matrix(self, role: str, layer: int = -1) -> Matrix:
        """A matrix for :func:`.reference_math.linear`."""
        return Matrix(self.get(role, layer), self._formats[role, layer])

    @property
    def head(self) -> Key:
        """Which matrix is the output matrix: its own or the embedding."""
        return ("head", -1) if ("head", -1) in self._tensors else ("embed", -1)

    def row_bytes(self, key: Key) -> int:
        """Bytes of one row of a matrix."""
        return self._tensors[key][0].numel() * self._tensors[key].element_size()

    @property
    def weight_bytes(self) -> int:
        """Bytes of all tensors that a decoding step reads: all but an embedding with a head of its own."""
        read = (t for key, t in self._tensors.items() if key[0] != "embed" or self.head == key)
        return sum(tensor.numel() * tensor.element_size() for tensor in read)
