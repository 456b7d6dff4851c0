"""Random models as plain arrays: a configuration of every family's shape, and weights to go with it.

No file, no torch: the engine tests depend on the weight table alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from specee.models.table import Slab, shapes
from specee.types import ModelConfig, RopeConfig

BASE = ModelConfig(
    family="llama",
    vocab_size=101,
    hidden_size=32,
    intermediate_size=48,
    num_layers=3,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    max_position=256,
    norm_eps=1e-5,
    rope=RopeConfig(),
    windows=(0, 0, 0),
    tied_head=False,
)

LLAMA3 = RopeConfig(
    theta=500.0,
    scaling="llama3",
    factor=8.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position=32,
)

CONFIGS: dict[str, ModelConfig] = {
    "llama": BASE,
    "llama-tied": replace(BASE, tied_head=True),
    "llama-linear-rope": replace(BASE, rope=RopeConfig(scaling="linear", factor=4.0)),
    "llama-llama3-rope": replace(BASE, rope=LLAMA3),
    "llama-biases": replace(BASE, qkv_bias=True, o_bias=True, mlp_bias=True),
    "mistral-window": replace(BASE, family="mistral", windows=(5, 5, 5), num_kv_heads=1),
    "qwen2": replace(BASE, family="qwen2", qkv_bias=True, tied_head=True, windows=(0, 7, 7)),
    "qwen3": replace(BASE, family="qwen3", qk_norm=True, head_dim=12, num_kv_heads=4),
    "odd": replace(BASE, hidden_size=40, intermediate_size=57, head_dim=10, vocab_size=67, norm_eps=1e-6),
}


@dataclass(frozen=True)
class RandomModel:
    """A configuration and one fp32 array for each tensor of its table."""

    config: ModelConfig
    weights: dict[tuple[str, int], np.ndarray]

    def slabs(self, rows: int = 17) -> Iterator[Slab]:
        """The weights in slabs of at most ``rows`` rows: uneven cuts, as a real checkpoint gives."""
        for (role, layer), array in self.weights.items():
            for begin in range(0, len(array), rows):
                yield Slab(role, layer, begin, np.ascontiguousarray(array[begin : begin + rows]))


def random_model(config: ModelConfig, seed: int, *, bf16: bool = False) -> RandomModel:
    """Weights of about unit gain, biases and norms far from trivial; bf16 values with ``bf16``."""
    rng = np.random.default_rng(seed)
    weights = {}
    for (role, layer), shape in shapes(config).items():
        if role.endswith("norm"):
            array = rng.uniform(0.5, 1.5, shape)
        elif len(shape) == 1:
            array = rng.normal(0.0, 0.3, shape)
        else:
            array = rng.normal(0.0, 1.0 if role == "embed" else 1.5 / np.sqrt(shape[1]), shape)
        array = array.astype(np.float32)
        weights[role, layer] = round_bf16(array) if bf16 and array.ndim == 2 else array
    return RandomModel(config, weights)


def round_bf16(array: np.ndarray) -> np.ndarray:
    """fp32 values rounded to the nearest bfloat16, ties to even; returned as fp32."""
    bits = np.ascontiguousarray(array, np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)
    return rounded.astype(np.uint32).view(np.float32)
