"""What a drafter block is made of: one decoder layer, and what brings its input together.

See :mod:`specee.fitting.drafter` for the formula. Heads, their size and the rotation are the model's own; the
feed-forward part may have another width.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from specee.types import ModelConfig

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class DrafterParts:
    """All fp32, with H the model's hidden size.

    ``layers``: those of the model whose outputs are fused, 1..num_layers, ascending. ``state_norms``
    (layers, H), ``fuse`` (H, layers * H), ``embed_norm`` and ``fused_norm`` (H,), ``fc`` (H, 2 H); then the
    layer's, by the names of :mod:`specee.models.table`.
    """

    layers: tuple[int, ...]
    state_norms: Floats
    fuse: Floats
    embed_norm: Floats
    fused_norm: Floats
    fc: Floats
    attn_norm: Floats
    mlp_norm: Floats
    q: Floats
    k: Floats
    v: Floats
    o: Floats
    gate: Floats
    up: Floats
    down: Floats

    def arrays(self) -> Iterator[tuple[str, Floats]]:
        """Name and values of every array."""
        for field in fields(self):
            if field.name != "layers":
                yield field.name, getattr(self, field.name)

    def misfit(self, config: ModelConfig) -> str | None:
        """What is wrong with the parts for a model, None if they fit."""
        if not _ascending(self.layers) or not 1 <= self.layers[0] <= self.layers[-1] <= config.num_layers:
            return f"layers {self.layers}: allowed are 1..{config.num_layers}, at least one, ascending"
        inner = self.gate.shape[0] if self.gate.ndim == 2 else 0
        wanted = shapes(config, len(self.layers), max(inner, 1))
        for name, array in self.arrays():
            if array.shape != wanted[name]:
                return f"{name} has shape {array.shape}, and must be {wanted[name]}"
        return None


def shapes(config: ModelConfig, layers: int, inner: int) -> dict[str, tuple[int, ...]]:
    """Shape of every array of a drafter that fuses so many layers, with a feed-forward part of that width."""
    hidden, q, kv = config.hidden_size, config.q_dim, config.kv_dim
    return {
        "state_norms": (layers, hidden),
        "fuse": (hidden, layers * hidden),
        "embed_norm": (hidden,),
        "fused_norm": (hidden,),
        "fc": (hidden, 2 * hidden),
        "attn_norm": (hidden,),
        "mlp_norm": (hidden,),
        "q": (q, hidden),
        "k": (kv, hidden),
        "v": (kv, hidden),
        "o": (hidden, q),
        "gate": (inner, hidden),
        "up": (inner, hidden),
        "down": (hidden, inner),
    }


def _ascending(layers: tuple[int, ...]) -> bool:
    return len(layers) > 0 and all(a < b for a, b in pairwise(layers))
