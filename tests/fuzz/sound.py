"""Sound GGUF files to start from: tiny random models, together of every stored type and kind of tokenizer.

Made with the gguf package and numpy alone, since torch is slow to import under a sanitizer.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import gguf
import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

from .layout import Layout, read_layout

_SEED = 41
_LETTERS = "abcdefghijklmnop"
# Layer matrices and the type of each; a file's default stands for those not named.
_Types = dict[str, str]


def blocks(kind: GGMLQuantizationType, rows: int, columns: int, rng: np.random.Generator) -> np.ndarray:
    """Random weights of one type. Of K-quants, which gguf cannot write: any bits, but moderate scales."""
    block, block_bytes = GGML_QUANT_SIZES[kind]
    try:
        values = rng.normal(0.0, columns**-0.5, (rows, columns)).astype(np.float32)
        return gguf.quants.quantize(values, kind)
    except NotImplementedError:
        data = rng.integers(0, 256, (rows * columns // block, block_bytes), np.uint8)
        for at in _SCALES[kind.name]:
            data[:, at : at + 2] = np.float16(2.0**-11).reshape(1).view(np.uint8)
        return data.reshape(rows, -1)


# Where a block holds its float16 scales.
_SCALES = {"Q2_K": (80, 82), "Q3_K": (108,), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,)}


def _write(
    arch: str,
    hidden: int,
    types: _Types,
    tokenizer: Callable[[gguf.GGUFWriter], int],
    *,
    tied: bool,
    bias: bool,
) -> bytes:
    rng = np.random.default_rng(_SEED)
    heads, kv_heads, layers, inner, context = 4, 2, 2, 64 if hidden < 256 else 256, 64
    head_dim = hidden // heads
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sound.gguf"
        writer = gguf.GGUFWriter(path, arch)
        writer.add_custom_alignment(32)
        writer.add_block_count(layers)
        writer.add_context_length(context)
        writer.add_embedding_length(hidden)
        writer.add_feed_forward_length(inner)
        writer.add_head_count(heads)
        writer.add_head_count_kv(kv_heads)
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
        writer.add_layer_norm_rms_eps(1e-5)
        writer.add_rope_freq_base(10000.0)
        writer.add_rope_dimension_count(head_dim)
        vocabulary = tokenizer(writer)

        def matrix(name: str, rows: int, columns: int) -> None:
            kind = GGMLQuantizationType[types.get(name.split(".")[-2], types["default"])]
            writer.add_tensor(name, blocks(kind, rows, columns, rng), raw_dtype=kind)

        def vector(name: str, size: int) -> None:
            writer.add_tensor(name, rng.uniform(0.5, 1.5, size).astype(np.float32))

        matrix("token_embd.weight", vocabulary, hidden)
        for layer in range(layers):
            prefix = f"blk.{layer}."
            for name, rows, columns in (
                ("attn_q", hidden, hidden),
                ("attn_k", kv_heads * head_dim, hidden),
                ("attn_v", kv_heads * head_dim, hidden),
                ("attn_output", hidden, hidden),
                ("ffn_gate", inner, hidden),
                ("ffn_up", inner, hidden),
                ("ffn_down", hidden, inner),
            ):
                matrix(f"{prefix}{name}.weight", rows, columns)
                if bias and name in ("attn_q", "attn_k", "attn_v"):
                    vector(f"{prefix}{name}.bias", rows)
            vector(f"{prefix}attn_norm.weight", hidden)
            vector(f"{prefix}ffn_norm.weight", hidden)
        vector("output_norm.weight", hidden)
        if not tied:
            matrix("output.weight", vocabulary, hidden)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path.read_bytes()


def _byte_level(writer: gguf.GGUFWriter) -> int:
    tokens = ["<s>", "</s>", *_LETTERS, "ab", "abc", "de"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3] + [1] * (len(tokens) - 2))
    writer.add_token_merges(["a b", "ab c", "d e"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_add_bos_token(True)
    return len(tokens)


def _sentencepiece(writer: gguf.GGUFWriter) -> int:
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(32)), *_LETTERS, "ab", "\u2581"]
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([-float(rank) for rank in range(len(tokens))])
    writer.add_token_types([2, 3, 3] + [6] * 32 + [1] * (len(tokens) - 35))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    return len(tokens)


def _no_tokenizer(_: gguf.GGUFWriter) -> int:
    return 37


_MIXED: _Types = {"default": "Q4_1", "token_embd": "Q8_0", "attn_v": "Q4_0", "attn_output": "F16"}
_K_QUANTS: _Types = {
    "default": "Q4_K",
    "attn_k": "Q5_K",
    "attn_v": "Q6_K",
    "ffn_down": "Q6_K",
    "output": "Q6_K",
}
_OTHERS: _Types = {"default": "BF16", "attn_q": "F32", "attn_output": "Q5_0", "ffn_down": "Q5_1"}
FILES: dict[str, Callable[[], bytes]] = {
    "mixed": lambda: _write("llama", 64, _MIXED, _byte_level, tied=True, bias=False),
    "k-quants": lambda: _write("llama", 256, _K_QUANTS, _sentencepiece, tied=False, bias=False),
    "others": lambda: _write("qwen2", 32, _OTHERS, _no_tokenizer, tied=True, bias=True),
    "floats": lambda: _write("llama", 32, {"default": "F32"}, _byte_level, tied=False, bias=False),
}


@cache
def sound_file(name: str) -> bytes:
    """The bytes of one of :data:`FILES`."""
    return FILES[name]()


def sound_layout(name: str) -> Layout:
    """A fresh layout of one of :data:`FILES`, to be mutated."""
    return read_layout(sound_file(name))
