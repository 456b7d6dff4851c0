"""The supported families as data: names of tensors, and how options turn into a shape.

Adding a family that fits the weight table means adding a row here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from specee.errors import UnsupportedModelError

HF_NAMES: Mapping[str, str] = {
    "embed": "model.embed_tokens.weight",
    "final_norm": "model.norm.weight",
    "head": "lm_head.weight",
    "attn_norm": "model.layers.{}.input_layernorm.weight",
    "mlp_norm": "model.layers.{}.post_attention_layernorm.weight",
    "q": "model.layers.{}.self_attn.q_proj.weight",
    "k": "model.layers.{}.self_attn.k_proj.weight",
    "v": "model.layers.{}.self_attn.v_proj.weight",
    "o": "model.layers.{}.self_attn.o_proj.weight",
    "q_bias": "model.layers.{}.self_attn.q_proj.bias",
    "k_bias": "model.layers.{}.self_attn.k_proj.bias",
    "v_bias": "model.layers.{}.self_attn.v_proj.bias",
    "o_bias": "model.layers.{}.self_attn.o_proj.bias",
    "q_norm": "model.layers.{}.self_attn.q_norm.weight",
    "k_norm": "model.layers.{}.self_attn.k_norm.weight",
    "gate": "model.layers.{}.mlp.gate_proj.weight",
    "up": "model.layers.{}.mlp.up_proj.weight",
    "down": "model.layers.{}.mlp.down_proj.weight",
    "gate_bias": "model.layers.{}.mlp.gate_proj.bias",
    "up_bias": "model.layers.{}.mlp.up_proj.bias",
    "down_bias": "model.layers.{}.mlp.down_proj.bias",
}
GGUF_NAMES: Mapping[str, str] = {
    "embed": "token_embd.weight",
    "final_norm": "output_norm.weight",
    "head": "output.weight",
    "attn_norm": "blk.{}.attn_norm.weight",
    "mlp_norm": "blk.{}.ffn_norm.weight",
    "q": "blk.{}.attn_q.weight",
    "k": "blk.{}.attn_k.weight",
    "v": "blk.{}.attn_v.weight",
    "o": "blk.{}.attn_output.weight",
    "q_bias": "blk.{}.attn_q.bias",
    "k_bias": "blk.{}.attn_k.bias",
    "v_bias": "blk.{}.attn_v.bias",
    "o_bias": "blk.{}.attn_output.bias",
    "q_norm": "blk.{}.attn_q_norm.weight",
    "k_norm": "blk.{}.attn_k_norm.weight",
    "gate": "blk.{}.ffn_gate.weight",
    "up": "blk.{}.ffn_up.weight",
    "down": "blk.{}.ffn_down.weight",
    "gate_bias": "blk.{}.ffn_gate.bias",
    "up_bias": "blk.{}.ffn_up.bias",
    "down_bias": "blk.{}.ffn_down.bias",
}

# Buffers that old checkpoints carry; they are recomputed from the configuration.
IGNORED_HF = ("rotary_emb.inv_freq",)
# Read with the configuration: the frequency divisors of Llama-3 rope.
IGNORED_GGUF = ("rope_freqs.weight",)


@dataclass(frozen=True)
class Family:
    """One row: how a family is named, and where it differs from plain Llama.

    The bias fields hold False, True, or the name of the configuration option that decides.
    ``windows`` says which layers slide: none, all with ``sliding_window``, or those that
    ``layer_types`` (or ``use_sliding_window`` and ``max_window_layers``) names. ``defaults`` are
    transformers' values for options that config.json leaves out. ``gguf_permuted`` marks GGUF
    files whose query and key rows are interleaved for the other rope convention.
    """

    name: str
    architecture: str
    gguf_arch: str
    gguf_permuted: bool = False
    qkv_bias: bool | str = False
    o_bias: bool | str = False
    mlp_bias: bool | str = False
    qk_norm: bool = False
    windows: Literal["none", "all", "layer_types"] = "none"
    defaults: Mapping[str, Any] = field(default_factory=dict)
    hf_names: Mapping[str, str] = field(default_factory=lambda: HF_NAMES)
    gguf_names: Mapping[str, str] = field(default_factory=lambda: GGUF_NAMES)


_SLIDING = {"use_sliding_window": False, "sliding_window": 4096, "max_window_layers": 28}

FAMILIES: tuple[Family, ...] = (
    Family(
        "llama",
        "LlamaForCausalLM",
        "llama",
        gguf_permuted=True,
        qkv_bias="attention_bias",
        o_bias="attention_bias",
        mlp_bias="mlp_bias",
    ),
    Family(
        "mistral",
        "MistralForCausalLM",
        "llama",
        gguf_permuted=True,
        windows="all",
        defaults={"num_key_value_heads": 8, "sliding_window": 4096},
    ),
    Family(
        "qwen2",
        "Qwen2ForCausalLM",
        "qwen2",
        qkv_bias=True,
        windows="layer_types",
        defaults={"num_key_value_heads": 32, **_SLIDING},
    ),
    Family(
        "qwen3",
        "Qwen3ForCausalLM",
        "qwen3",
        qkv_bias="attention_bias",
        o_bias="attention_bias",
        qk_norm=True,
        windows="layer_types",
        defaults={"num_key_value_heads": 32, "head_dim": 128, **_SLIDING},
    ),
)


def by_name(name: str) -> Family:
    """The family of ``ModelConfig.family``. Raises KeyError."""
    return {family.name: family for family in FAMILIES}[name]


def by_architecture(architecture: str, where: str) -> Family:
    """The family of a transformers class name. Raises UnsupportedModelError, naming ``where``."""
    for family in FAMILIES:
        if family.architecture == architecture:
            return family
    known = ", ".join(family.architecture for family in FAMILIES)
    raise UnsupportedModelError(
        f"{where}: architecture {architecture!r} is not supported; supported are {known}. "
        "Choose a model of one of these architectures."
    )


def by_gguf_arch(arch: str, where: str, *, sliding: bool) -> Family:
    """The family of a GGUF ``general.architecture``. Raises UnsupportedModelError, naming ``where``.

    Mistral files say ``llama``; ``sliding``, whether the file has a sliding window, tells them apart.
    """
    rows = [family for family in FAMILIES if family.gguf_arch == arch]
    for family in rows:
        if sliding == (family.windows != "none"):
            return family
    if rows:
        return rows[0]
    known = ", ".join(dict.fromkeys(family.gguf_arch for family in FAMILIES))
    raise UnsupportedModelError(
        f"{where}: general.architecture {arch!r} is not supported; supported are {known}. "
        "Choose a model of one of these architectures."
    )
