"""What a drafter block is made of: one decoder layer, and what brings its input together.

See :mod:`specee.fitting.drafter` for the formula. A *plain* block is EAGLE's (Li et al., ICML 2024): it reads
one layer, and has none of the norms but that of the state and the layer's second::

    x = fc [e, f] + fc_bias         f = rms_norm(state), or what the block gave itself, as it is
    g = layer(x), whose attention reads x as it is
    logits = head(g), without the model's final norm

Heads, their size and the rotation are the model's own; the
feed-forward part may have another width.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from specee.types import ModelConfig

Floats = npt.NDArray[np.float32]

FITTED = ("fuse", "embed_norm", "fused_norm", "attn_norm")
"""Parts that a plain block has not."""


def _none() -> Floats:
    return np.zeros(0, np.float32)


@dataclass(frozen=True)
class DrafterParts:
    """All fp32, with H the model's hidden size.

    ``layers``: those of the model whose outputs are fused, 1..num_layers, ascending. ``state_norms``
    (layers, H), ``fuse`` (H, layers * H), ``embed_norm`` and ``fused_norm`` (H,), ``fc`` (H, 2 H); then the
    layer's, by the names of :mod:`specee.models.table`. A plain block has ``fc_bias`` (H,), and of
    :data:`FITTED` none; what a block has not is empty, (0,).
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
    fc_bias: Floats = field(default_factory=_none)

    @property
    def plain(self) -> bool:
        """Whether it is EAGLE's."""
        return self.attn_norm.size == 0

    def arrays(self) -> Iterator[tuple[str, Floats]]:
        """Name and values of every array that it has."""
        for part in fields(self):
            if part.name != "layers" and getattr(self, part.name).size:
                yield part.name, getattr(self, part.name)

    def misfit(self, config: ModelConfig) -> str | None:
        """What is wrong with the parts for a model, None if they fit."""
        if not _ascending(self.layers) or not 1 <= self.layers[0] <= self.layers[-1] <= config.num_layers:
            return f"layers {self.layers}: allowed are 1..{config.num_layers}, at least one, ascending"
        if self.plain and len(self.layers) != 1:
            return f"layers {self.layers}: a block without norms reads one"
        inner = self.gate.shape[0] if self.gate.ndim == 2 else 0
        wanted = shapes(config, len(self.layers), max(inner, 1), plain=self.plain)
        for part in fields(self):
            shape = wanted.get(part.name, (0,))
            if part.name != "layers" and (found := getattr(self, part.name).shape) != shape:
                return f"{part.name} has shape {found}, and must be {shape}"
        return None


def shapes(
    config: ModelConfig, layers: int, inner: int, *, plain: bool = False
) -> dict[str, tuple[int, ...]]:
    """Shape of every array of a drafter that fuses so many layers, with a feed-forward part of that width."""
    hidden, q, kv = config.hidden_size, config.q_dim, config.kv_dim
    everything = {
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
    if not plain:
        return everything
    return {name: shape for name, shape in everything.items() if name not in FITTED} | {"fc_bias": (hidden,)}


def _ascending(layers: tuple[int, ...]) -> bool:
    return len(layers) > 0 and all(a < b for a, b in pairwise(layers))
