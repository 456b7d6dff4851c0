"""Exit predictors of the CUDA backend: their networks on the device, where steps and launches ask them."""

from __future__ import annotations

import numpy as np
import torch

from specee.backends.reference_exits import ReferenceExits
from specee.cuda.scoring import Mlp
from specee.models.exit_parts import ExitParts
from specee.types import ModelConfig


class CudaExits(ReferenceExits):
    """See :meth:`.Backend.exit_predictors`."""

    def __init__(self, parts: ExitParts, config: ModelConfig, device: torch.device) -> None:
        super().__init__(parts, config)
        self._networks = {layer: self._on(device, i) for i, layer in enumerate(self.layers)}

    def network(self, layer: int) -> Mlp:
        """The predictor that is asked when ``layer`` layers are done."""
        return self._networks[layer]

    def _on(self, device: torch.device, i: int) -> Mlp:
        parts = self._parts
        arrays = (parts.first[i].T, parts.first_bias[i], parts.second[i], parts.second_bias[i : i + 1])
        there = [torch.from_numpy(np.array(array, np.float32, order="C")) for array in arrays]
        return Mlp(*(array.to(device) for array in there))
