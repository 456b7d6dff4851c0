"""Tiny random models of every family, as Hugging Face folders and as GGUF files.

The weights are drawn so that nothing is neutral: norms differ from one, biases from zero, logits spread
over several units and attention is peaked, so a mistake anywhere shows in the output.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

VOCAB_SIZE = 300
SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CORPUS = (
    "The quick brown fox jumps over the lazy dog. ",
    "def add(a, b):\n    return a + b\n",
    "In 1969 there were 12 ways to say it isn't so; naïve café, 你好 世界. ",
)
_BASE: dict[str, Any] = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "tie_word_embeddings": False,
}
_LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


@dataclass(frozen=True)
class Family:
    """A transformers configuration class and the options that make this variant."""

    config_class: str
    options: dict[str, Any] = field(default_factory=dict)
    gguf_arch: str = "llama"


FAMILIES: dict[str, Family] = {
    "llama": Family("LlamaConfig"),
    "llama_tied": Family("LlamaConfig", {"tie_word_embeddings": True, "num_key_value_heads": 4}),
    "llama_rope3": Family("LlamaConfig", {"rope_parameters": _LLAMA3_ROPE, "head_dim": 16}),
    "llama_rope_linear": Family(
        "LlamaConfig",
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}},
    ),
    "llama_bias": Family("LlamaConfig", {"attention_bias": True, "mlp_bias": True}),
    "llama_odd": Family(
        "LlamaConfig", {"hidden_size": 40, "head_dim": 10, "intermediate_size": 56, "num_hidden_layers": 2}
    ),
    "mistral": Family("MistralConfig", {"sliding_window": 8}),
    "mistral_full": Family("MistralConfig", {"sliding_window": None, "num_key_value_heads": 1}),
    "qwen2": Family("Qwen2Config", {"tie_word_embeddings": True}, "qwen2"),
    "qwen2_sliding": Family(
        "Qwen2Config",
        {"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 1, "num_hidden_layers": 4},
        "qwen2",
    ),
    "qwen3": Family("Qwen3Config", {"head_dim": 16}, "qwen3"),
    "qwen3_sliding": Family(
        "Qwen3Config",
        {
            "head_dim": 8,
            "attention_bias": True,
            "use_sliding_window": True,
            "sliding_window": 5,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        },
        "qwen3",
    ),
}


def tiny_model(
    family: str, *, seed: int, dtype: str = "float32", tied: bool | None = None, **overrides: Any
) -> Any:
    """A random ``PreTrainedModel`` in evaluation mode; ``family`` is a key of :data:`FAMILIES`."""
    import torch
    import transformers

    variant = FAMILIES[family]
    options = {**_BASE, **variant.options, **overrides}
    if tied is not None:
        options["tie_word_embeddings"] = tied
    if transformers.__version__.startswith("4.") and (rope := dict(options.pop("rope_parameters", {}))):
        options |= {"rope_theta": rope.pop("rope_theta"), "rope_scaling": rope}
    config = getattr(transformers, variant.config_class)(**options)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = transformers.AutoModelForCausalLM.from_config(config)
        _randomise(model)
    return model.to(getattr(torch, dtype)).eval()


def _randomise(model: Any) -> None:
    import torch

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape)
            if name.endswith("bias"):
                parameter.copy_(noise * 0.3)
            elif parameter.dim() == 1:
                parameter.copy_(1.0 + 0.3 * noise)
            elif "embed_tokens" in name:
                parameter.copy_(noise * 0.5)
            else:
                gain = 2.0 if "q_proj" in name or "k_proj" in name or "lm_head" in name else 1.2
                parameter.copy_(noise * gain / parameter.shape[1] ** 0.5)


def tiny_tokenizer(vocab_size: int = VOCAB_SIZE) -> Any:
    """A byte-level BPE ``tokenizers.Tokenizer`` of exactly ``vocab_size`` ids, digits split singly."""
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers, trainers

    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    assert tokenizer.get_vocab_size() == vocab_size, "the corpus is too small for this vocabulary"
    return tokenizer


def save_tokenizer(folder: Path) -> None:
    """Write ``tokenizer.json`` and ``tokenizer_config.json`` with a chat template."""
    tiny_tokenizer().save(str(folder / "tokenizer.json"))
    settings = {
        "bos_token": SPECIAL_TOKENS[1],
        "eos_token": SPECIAL_TOKENS[2],
        "pad_token": SPECIAL_TOKENS[0],
        "chat_template": CHAT_TEMPLATE,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")


def tiny_folder(
    family: str,
    tmp_path: Path,
    *,
    seed: int,
    dtype: str = "float32",
    tied: bool | None = None,
    sharded: bool = False,
    **overrides: Any,
) -> Path:
    """Save a tiny random model of ``family`` with its tokenizer; returns the folder.

    ``dtype`` is a torch dtype name; ``sharded`` splits the weights over several safetensors files;
    ``overrides`` go to the transformers configuration.
    """
    folder = Path(tmp_path) / f"{family}-{dtype}-{seed}{'-sharded' if sharded else ''}"
    model = tiny_model(family, seed=seed, dtype=dtype, tied=tied, **overrides)
    model.save_pretrained(folder, **({"max_shard_size": "20KB"} if sharded else {}))
    save_tokenizer(folder)
    return folder


def random_prompt(seed: int, length: int) -> list[int]:
    """``length`` token ids, none of them special."""
    return np.random.default_rng(seed).integers(len(SPECIAL_TOKENS), VOCAB_SIZE, length).tolist()


def tiny_gguf(
    family: str,
    path: Path,
    *,
    seed: int,
    quantization: str = "F32",
    tokenizer: bool = True,
    metadata: dict[str, Any] | None = None,
    **overrides: Any,
) -> Path:
    """Write the model of ``tiny_folder(family, seed=seed)`` as a GGUF file; returns ``path``.

    ``quantization`` is a GGML type for matrices whose rows it can hold; other tensors are F32.
    ``metadata`` adds or replaces entries, with None dropping one.
    """
    import gguf

    model = tiny_model(family, seed=seed, **overrides)
    entries = {**_gguf_metadata(model.config, FAMILIES[family].gguf_arch), **(metadata or {})}
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(path, FAMILIES[family].gguf_arch)
    for key, value in entries.items():
        if value is not None:
            _gguf_add(writer, key, value)
    if tokenizer:
        _gguf_tokenizer(writer)
    for name, array in gguf_arrays(family, model).items():
        kind = gguf.GGMLQuantizationType[quantization]
        if array.ndim == 1 or array.shape[-1] % gguf.GGML_QUANT_SIZES[kind][0]:
            kind = gguf.GGMLQuantizationType.F32
        writer.add_tensor(name, gguf.quants.quantize(array, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def gguf_arrays(family: str, model: Any) -> dict[str, np.ndarray]:
    """float32 tensors under their GGUF names, query and key rows interleaved where GGUF has them so."""
    import torch

    config = model.config
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    arrays = {}
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        array = tensor.float().numpy()
        if FAMILIES[family].gguf_arch == "llama" and ("q_proj" in name or "k_proj" in name):
            # Row i of the first half and row i of the second become neighbours.
            halves = array.reshape(-1, 2, head_dim // 2, *array.shape[1:])
            array = np.stack([halves[:, 0], halves[:, 1]], axis=2).reshape(array.shape)
        arrays[_gguf_name(name)] = array
    if (config.rope_parameters or {}).get("rope_type") == "llama3":
        plain = 1.0 / config.rope_parameters["rope_theta"] ** (
            torch.arange(0, head_dim, 2).float() / head_dim
        )
        arrays["rope_freqs.weight"] = (plain / model.model.rotary_emb.inv_freq).numpy()
    return arrays


def _gguf_name(name: str) -> str:
    renames = {
        "model.embed_tokens": "token_embd",
        "model.norm": "output_norm",
        "lm_head": "output",
        "model.layers.": "blk.",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
        "self_attn.o_proj": "attn_output",
        "self_attn.q_norm": "attn_q_norm",
        "self_attn.k_norm": "attn_k_norm",
        "self_attn.": "attn_",
        "mlp.": "ffn_",
        "_proj": "",
    }
    for old, new in renames.items():
        name = name.replace(old, new)
    return name


def _gguf_metadata(config: Any, arch: str) -> dict[str, Any]:
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    entries: dict[str, Any] = {
        f"{arch}.block_count": config.num_hidden_layers,
        f"{arch}.context_length": config.max_position_embeddings,
        f"{arch}.embedding_length": config.hidden_size,
        f"{arch}.feed_forward_length": config.intermediate_size,
        f"{arch}.attention.head_count": config.num_attention_heads,
        f"{arch}.attention.head_count_kv": config.num_key_value_heads,
        f"{arch}.attention.key_length": head_dim,
        f"{arch}.attention.value_length": head_dim,
        f"{arch}.attention.layer_norm_rms_epsilon": float(config.rms_norm_eps),
        f"{arch}.rope.freq_base": float(config.rope_parameters["rope_theta"]),
        f"{arch}.rope.dimension_count": head_dim,
        f"{arch}.vocab_size": config.vocab_size,
    }
    if config.rope_parameters["rope_type"] == "linear":
        entries[f"{arch}.rope.scaling.type"] = "linear"
        entries[f"{arch}.rope.scaling.factor"] = float(config.rope_parameters["factor"])
    if getattr(config, "sliding_window", None):
        entries[f"{arch}.attention.sliding_window"] = config.sliding_window
    return entries


def _gguf_add(writer: Any, key: str, value: Any) -> None:
    add = {
        bool: writer.add_bool,
        int: writer.add_uint32,
        float: writer.add_float32,
        str: writer.add_string,
        list: writer.add_array,
    }
    add[type(value)](key, value)


def _gguf_tokenizer(writer: Any) -> None:
    model = json.loads(tiny_tokenizer().to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    entries = {
        "model": "gpt2",
        "pre": "smollm",
        "tokens": tokens,
        "token_type": [3 if token in SPECIAL_TOKENS else 1 for token in tokens],
        "merges": [" ".join(merge) for merge in model["merges"]],
        "bos_token_id": 1,
        "eos_token_id": 2,
        "padding_token_id": 0,
        "add_bos_token": False,
    }
    for key, value in entries.items():
        _gguf_add(writer, f"tokenizer.ggml.{key}", value)
    writer.add_string("tokenizer.chat_template", CHAT_TEMPLATE)


def sentencepiece_vocabulary() -> dict[str, Any]:
    """Metadata of a SentencePiece tokenizer as Llama 2 has it: byte tokens, scored pieces, no merges."""
    import tokenizers
    from tokenizers import models, trainers

    tokenizer = tokenizers.Tokenizer(models.BPE())
    trainer = trainers.BpeTrainer(vocab_size=200, show_progress=False)
    tokenizer.train_from_iterator(["\u2581" + line.replace(" ", "\u2581") for line in CORPUS], trainer)
    model = json.loads(tokenizer.to_str())["model"]
    merged = ["".join(merge) for merge in model["merges"]]
    characters = sorted(set(model["vocab"]) - set(merged))
    pieces = [*dict.fromkeys(merged), *characters]
    byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    return {
        "model": "llama",
        "tokens": ["<unk>", "<s>", "</s>", *byte_tokens, *pieces],
        "scores": [0.0] * 259 + [-float(rank) for rank in range(len(pieces))],
        "token_type": [2, 3, 3] + [6] * 256 + [1] * len(pieces),
        "bos_token_id": 1,
        "eos_token_id": 2,
        "unknown_token_id": 0,
    }


def tokenizer_gguf(path: Path, entries: dict[str, Any], arch: str = "llama") -> Path:
    """A GGUF file with nothing but tokenizer metadata (``tokenizer.ggml.*``)."""
    import gguf

    writer = gguf.GGUFWriter(path, arch)
    for key, value in entries.items():
        _gguf_add(writer, f"tokenizer.ggml.{key}", value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path
