"""One decoder layer of the reference backend, one row at a time."""

from __future__ import annotations

from torch import Tensor

from specee.backends.reference_math import linear, rms_norm, rotate, swiglu
from specee.backends.reference_weights import ReferenceWeights
from specee.types import ModelConfig


class ReferenceLayer:
    """The layer with its tensors at hand."""

    def __init__(self, config: ModelConfig, table: ReferenceWeights, layer: int) -> None:
        self._config, self._table, self._index = config, table, layer
        roles = ("q", "k", "v", "o", "gate", "up", "down")
        self._matrix = {role: table.matrix(role, layer) for role in roles}

    def _linear(self, role: str, x: Tensor) -> Tensor:
        bias = self._table.maybe(f"{role}_bias", self._index)
        return linear(x, self._matrix[role], bias)

    def _norm(self, role: str, x: Tensor) -> Tensor:
        return rms_norm(x, self._table.get(role, self._index), self._config.norm_eps)

    def project(self, x: Tensor, position: int, speeds: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Rotated query (heads, d) and key (kv_heads, d), and value (kv_heads, d), of one row."""
        config = self._config
        normed = self._norm("attn_norm", x)
        query = self._linear("q", normed).view(config.num_heads, config.head_dim)
        key = self._linear("k", normed).view(config.num_kv_heads, config.head_dim)
        value = self._linear("v", normed).view(config.num_kv_heads, config.head_dim)
        if config.qk_norm:
            query, key = self._norm("q_norm", query), self._norm("k_norm", key)
        return rotate(query, position, speeds), rotate(key, position, speeds), value

    def finish(self, x: Tensor, mixed: Tensor) -> Tensor:
        """Output projection, then the feed-forward half: the row's hidden state after the layer."""
        x = x + self._linear("o", mixed)
        normed = self._norm("mlp_norm", x)
        return x + self._linear("down", swiglu(self._linear("gate", normed), self._linear("up", normed)))
