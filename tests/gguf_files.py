"""Random models as GGUF files, matrices of any type in any mixture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import gguf
import numpy as np

from specee.models.families import GGUF_NAMES
from specee.types import ModelConfig
from tests.random_model import Key, RandomModel

Tensors = Mapping[Key, tuple[str, np.ndarray]]


def tensors_of(model: RandomModel) -> dict[Key, tuple[str, np.ndarray]]:
    """Type and array of each tensor: block rows of quantised matrices, else float32 that the type holds."""
    return {
        key: (model.formats.get(key, "F32"), model.blocks.get(key, array))
        for key, array in model.weights.items()
    }


def write_gguf(path: Path, config: ModelConfig, tensors: Tensors, **metadata: int) -> Path:
    """Write a Llama model without a tokenizer; query and key rows are interleaved, as in such files."""
    assert config.family == "llama"
    writer = gguf.GGUFWriter(path, "llama")
    entries = {
        "block_count": config.num_layers,
        "context_length": config.max_position,
        "embedding_length": config.hidden_size,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_heads,
        "attention.head_count_kv": config.num_kv_heads,
        "attention.key_length": config.head_dim,
        "attention.value_length": config.head_dim,
        "rope.dimension_count": config.head_dim,
        "vocab_size": config.vocab_size,
    }
    for key, number in {**entries, **metadata}.items():
        writer.add_uint32(f"llama.{key}", number)
    writer.add_float32("llama.attention.layer_norm_rms_epsilon", config.norm_eps)
    writer.add_float32("llama.rope.freq_base", config.rope.theta)
    for (role, layer), (kind, array) in tensors.items():
        rows = interleaved(array, config.head_dim) if role in ("q", "k", "q_bias", "k_bias") else array
        type_ = gguf.GGMLQuantizationType[kind]
        data = rows if rows.dtype == np.uint8 else gguf.quants.quantize(rows, type_)
        writer.add_tensor(GGUF_NAMES[role].format(layer), data, raw_dtype=type_)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def interleaved(rows: np.ndarray, head_dim: int) -> np.ndarray:
    """Rows of whole heads, row i of a head's first half and row i of its second made neighbours."""
    halves = rows.reshape(-1, 2, head_dim // 2, *rows.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(rows.shape)
