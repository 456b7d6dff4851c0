"""Random models as plain arrays: a configuration of every family's shape, and weights to go with it.

No file, no torch: the engine tests depend on the weight table alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from specee.models.table import Slab, shapes
from specee.types import ModelConfig, RopeConfig
from tests import quantised

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

# "aligned" has rows of whole blocks of 32 and heads of 16; "wide" rows of 256 for K-quants.
CONFIGS["aligned"] = replace(
    BASE, hidden_size=64, intermediate_size=64, head_dim=16, num_heads=4, tied_head=True, vocab_size=120
)
WIDE = replace(BASE, hidden_size=256, intermediate_size=256, head_dim=64, num_layers=2, windows=(0, 0))

# "tiles" has what the CUDA kernels ask for: rows of whole blocks of 32, heads of 64 and more. The others are
# one of each kind of model.
TILES = replace(BASE, hidden_size=64, intermediate_size=96, head_dim=64, num_heads=2, num_kv_heads=1)
TILED = {
    "tiles": TILES,
    "tiles-biases": replace(TILES, qkv_bias=True, o_bias=True, mlp_bias=True),
    "tiles-qk-norm": replace(TILES, family="qwen3", qk_norm=True, rope=LLAMA3, num_kv_heads=2),
    "tiles-window": replace(
        TILES, family="qwen2", qkv_bias=True, tied_head=True, windows=(0, 7, 7), head_dim=128, num_heads=1
    ),
    "tiles-short": replace(TILES, num_layers=2, windows=(0, 0), num_heads=1, vocab_size=48),
    "tiles-linear-rope": replace(TILES, rope=CONFIGS["llama-linear-rope"].rope, head_dim=256, num_heads=1),
}
SHAPES = CONFIGS | {"wide": WIDE} | TILED

# How a model's matrices are stored: a choice of weights, or formats that a GGUF file may have.
FILES = ("q4_0", "mixed", "k-quants", "floats")
Key = tuple[str, int]


@dataclass(frozen=True)
class RandomModel:
    """A configuration and one fp32 array for each tensor of its table: the values that are stored.

    ``formats`` has what each matrix is stored in, ``blocks`` the block rows of those stored quantised.
    """

    config: ModelConfig
    weights: dict[Key, np.ndarray]
    formats: dict[Key, str]
    blocks: dict[Key, np.ndarray] = field(default_factory=dict)

    def slabs(self, rows: int = 17) -> Iterator[Slab]:
        """The weights in slabs of at most ``rows`` rows: uneven cuts, as a real checkpoint gives."""
        for key, values in self.weights.items():
            array = self.blocks.get(key, values)
            form = self.formats[key] if key in self.blocks else "F32"
            for begin in range(0, len(array), rows):
                yield Slab(*key, begin, np.ascontiguousarray(array[begin : begin + rows]), form)


def random_model(config: ModelConfig, seed: int, kind: str = "fp32") -> RandomModel:
    """Weights of about unit gain, biases and norms far from trivial, all of values that ``kind`` can store.

    ``kind`` is a choice of weights or one of FILES. A matrix whose rows are no whole blocks is F16 in these,
    as in files.
    """
    rng = np.random.default_rng(seed)
    weights, formats, blocks = {}, {}, {}
    for (role, layer), shape in shapes(config).items():
        key = (role, layer)
        if role.endswith("norm"):
            weights[key] = rng.uniform(0.5, 1.5, shape).astype(np.float32)
        elif len(shape) == 1:
            weights[key] = rng.normal(0.0, 0.3, shape).astype(np.float32)
        else:
            gain = 1.0 if role == "embed" else 1.5 / np.sqrt(shape[1])
            formats[key] = stored(kind, role, shape[1])
            weights[key], made = random_matrix(rng, shape, formats[key], gain)
            if made is not None:
                blocks[key] = made
    return RandomModel(config, weights, formats, blocks)


def stored(kind: str, role: str, columns: int) -> str:
    """What a matrix of that role is stored in."""
    outer = role in ("embed", "head")
    if kind in ("fp32", "bf16"):
        return {"fp32": "F32", "bf16": "BF16"}[kind]
    if kind in ("int8", "int4"):  # any number of columns: the last block is filled up
        return "Q8_0" if outer or kind == "int8" else "Q4_1"
    if kind == "floats":
        return {"embed": "F16", "head": "BF16", "o": "F32", "down": "BF16"}.get(role, "F16")
    if kind == "k-quants":
        return {
            "v": "Q6_K",
            "gate": "Q5_K",
            "up": "Q5_K",
            "down": "Q6_K",
            "embed": "Q6_K",
            "head": "Q5_K",
        }.get(role, "Q4_K")
    form = "Q4_0" if kind == "q4_0" else "Q8_0" if outer else "Q4_1"
    return "F16" if columns % 32 else form


def random_matrix(
    rng: np.random.Generator, shape: tuple[int, ...], form: str, gain: float
) -> tuple[np.ndarray, np.ndarray | None]:
    """fp32 values of deviation ``gain`` that ``form`` holds, and the block rows if it is quantised."""
    if form in quantised.KINDS:
        columns = shape[1]
        if columns % quantised.BLOCK[form]:
            blocks = quantised.from_floats(rng.normal(0.0, gain, shape), form)
        else:
            blocks = quantised.random_rows(rng, *shape, form, gain)
        return quantised.to_floats(blocks, form, columns), blocks
    array = rng.normal(0.0, gain, shape).astype(np.float32)
    if form == "F16":
        return array.astype(np.float16).astype(np.float32), None
    return round_bf16(array) if form == "BF16" else array, None


def round_bf16(array: np.ndarray) -> np.ndarray:
    """fp32 values rounded to the nearest bfloat16, ties to even; returned as fp32."""
    bits = np.ascontiguousarray(array, np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)
    return rounded.astype(np.uint32).view(np.float32)
