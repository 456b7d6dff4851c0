"""The weight table: what tensors a model has, by role, whatever the file they come from.

Roles without a layer (``layer == -1``)::

    embed       (vocab_size, hidden_size)
    final_norm  (hidden_size,)
    head        (vocab_size, hidden_size)      absent when the head is tied to ``embed``

Roles of each layer::

    attn_norm   (hidden_size,)                 mlp_norm  (hidden_size,)
    q           (q_dim, hidden_size)           q_bias    (q_dim,)     if qkv_bias
    k, v        (kv_dim, hidden_size)          k_bias, v_bias (kv_dim,) if qkv_bias
    q_norm, k_norm (head_dim,)                 if qk_norm
    o           (hidden_size, q_dim)           o_bias    (hidden_size,) if o_bias
    gate, up    (intermediate_size, hidden_size)   gate_bias, up_bias (intermediate_size,) if mlp_bias
    down        (hidden_size, intermediate_size)   down_bias (hidden_size,) if mlp_bias

``q`` and ``k`` are in the rotate-half order of Hugging Face checkpoints.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from specee.errors import CheckpointError
from specee.models.blocks import Array, dtype_of
from specee.types import ModelConfig


@dataclass(frozen=True)
class Slab:
    """Rows ``row_begin .. row_begin + len(array)`` of one tensor of the table.

    ``array`` is C-contiguous and of ``format``: F32 (float32), F16 (float16), BF16 (uint16 holding the bit
    patterns), or a quantised format with uint8 (rows, row_bytes), the blocks of whole rows as GGUF has them.
    Large tensors come as several slabs so that no whole copy is ever held.
    """

    role: str
    layer: int
    row_begin: int
    array: Array
    format: str

    def check_dtype(self) -> None:
        """Raise CheckpointError if the array is not held as its format is."""
        if self.array.dtype != dtype_of(self.format):
            raise CheckpointError(
                f"tensor {self.role!r} of layer {self.layer} is {self.array.dtype}, and {self.format} comes "
                f"as {dtype_of(self.format)}; convert it"
            )


Key: TypeAlias = tuple[str, int]
"""Role and layer of a tensor, -1 for those without a layer."""


def shapes(config: ModelConfig) -> dict[Key, tuple[int, ...]]:
    """Every tensor that ``config`` requires: (role, layer) -> shape."""
    h, i, q, kv = config.hidden_size, config.intermediate_size, config.q_dim, config.kv_dim
    layer: dict[str, tuple[int, ...]] = {
        "attn_norm": (h,),
        "mlp_norm": (h,),
        "q": (q, h),
        "k": (kv, h),
        "v": (kv, h),
        "o": (h, q),
        "gate": (i, h),
        "up": (i, h),
        "down": (h, i),
    }
    if config.qkv_bias:
        layer |= {"q_bias": (q,), "k_bias": (kv,), "v_bias": (kv,)}
    if config.qk_norm:
        layer |= {"q_norm": (config.head_dim,), "k_norm": (config.head_dim,)}
    if config.o_bias:
        layer |= {"o_bias": (h,)}
    if config.mlp_bias:
        layer |= {"gate_bias": (i,), "up_bias": (i,), "down_bias": (h,)}
    table: dict[Key, tuple[int, ...]] = {
        ("embed", -1): (config.vocab_size, h),
        ("final_norm", -1): (h,),
    }
    if not config.tied_head:
        table["head", -1] = (config.vocab_size, h)
    for index in range(config.num_layers):
        table |= {(role, index): shape for role, shape in layer.items()}
    return table


def matrices(config: ModelConfig) -> dict[Key, tuple[int, int]]:
    """The entries of :func:`shapes` that are matrices: (rows, columns)."""
    return {key: (shape[0], shape[1]) for key, shape in shapes(config).items() if len(shape) == 2}
