"""What training needs of the frozen model, in torch: embedding, head, and the last layer to begin with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from specee.models.blocks import widen
from specee.models.checkpoint import Checkpoint
from specee.models.table import Key, shapes
from specee.types import ModelConfig, WeightFormat

_BLOCK = ("attn_norm", "mlp_norm", "q", "k", "v", "o", "gate", "up", "down")


@dataclass(frozen=True)
class Frozen:
    """Tensors in fp32, with the values that the model is run with.

    ``embedding`` and ``head`` (vocab_size, hidden_size), ``final_norm`` (hidden_size,); ``last`` has the
    parts of the last layer that a drafter block has too.
    """

    config: ModelConfig
    embedding: Tensor
    head: Tensor
    final_norm: Tensor
    last: dict[str, Tensor]

    def rows(self, vocabulary: Tensor) -> Tensor:
        """The head's for ``vocabulary`` (tokens,), ascending: (tokens, hidden_size); no copy of all."""
        return self.head if len(vocabulary) == len(self.head) else self.head[vocabulary]

    def normed(self, states: Tensor) -> Tensor:
        """What the head takes for hidden states: (..., hidden_size)."""
        states = states.float()
        scale = torch.rsqrt(states.pow(2).mean(-1, keepdim=True) + self.config.norm_eps)
        return states * scale * self.final_norm


def read_frozen(checkpoint: Checkpoint, weights: WeightFormat) -> Frozen:
    """As a model with those weights has it; nothing else is kept in memory. Raises CheckpointError."""
    config = checkpoint.config
    last = config.num_layers - 1
    wanted: set[Key] = {("embed", -1), ("head", -1), ("final_norm", -1), *((role, last) for role in _BLOCK)}
    table = {key: np.empty(shape, np.float32) for key, shape in shapes(config).items() if key in wanted}
    for slab in checkpoint.slabs(checkpoint.formats(weights)):
        into = table.get((slab.role, slab.layer))
        if into is not None:
            columns = into.shape[-1] if into.ndim > 1 else 1
            into[slab.row_begin : slab.row_begin + len(slab.array)] = widen(slab.array, slab.format, columns)
    tensors = {key: torch.from_numpy(array) for key, array in table.items()}
    embedding = tensors["embed", -1]
    return Frozen(
        config,
        embedding,
        tensors.get(("head", -1), embedding),
        tensors["final_norm", -1],
        {role: tensors[role, last] for role in _BLOCK},
    )
