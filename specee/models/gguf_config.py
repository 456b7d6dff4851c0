"""GGUF metadata -> ModelConfig."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from specee.errors import CheckpointError, UnsupportedModelError
from specee.models.families import Family, by_gguf_arch
from specee.models.gguf_header import GGUFHeader
from specee.models.hf_config import check_heads
from specee.models.options import MOST_LAYERS, Options
from specee.models.source import TensorSource
from specee.types import ModelConfig, RopeConfig

_ROPE_FACTORS = "rope_freqs.weight"
# Published Llama 3.1 to 3.3 models all have these; the file stores only the resulting divisors.
_LOW, _HIGH = 1.0, 4.0


def read_gguf_config(header: GGUFHeader, source: TensorSource) -> tuple[Family, ModelConfig]:
    """Family and shape from metadata and the names of tensors.

    Raises UnsupportedModelError for architectures and options outside the supported ones and
    CheckpointError for missing or contradictory values.
    """
    where = str(header.path)
    arch = header.metadata.get("general.architecture")
    sliding = f"{arch}.attention.sliding_window" in header.metadata
    family = by_gguf_arch(arch if isinstance(arch, str) else repr(arch), where, sliding=sliding)
    prefix = f"{arch}."
    values = {key[len(prefix) :]: value for key, value in header.metadata.items() if key.startswith(prefix)}
    options = Options(values, where)
    heads, hidden = options.integer("attention.head_count"), options.integer("embedding_length")
    head_dim = options.integer("attention.key_length", hidden // heads)
    _refuse_unsupported(options, head_dim)
    layers = options.integer("block_count", most=MOST_LAYERS)
    names = header.tensors.keys()
    config = ModelConfig(
        family=family.name,
        vocab_size=_vocab_size(header, family, options),
        hidden_size=hidden,
        intermediate_size=options.integer("feed_forward_length"),
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=options.integer("attention.head_count_kv", heads),
        head_dim=head_dim,
        max_position=options.integer("context_length"),
        norm_eps=_shortest(options.number("attention.layer_norm_rms_epsilon")),
        rope=_rope(options, source, head_dim),
        windows=_windows(family, options, layers),
        tied_head=family.gguf_names["head"] not in names,
        qkv_bias=family.gguf_names["q_bias"].format(0) in names,
        o_bias=family.gguf_names["o_bias"].format(0) in names,
        mlp_bias=family.gguf_names["up_bias"].format(0) in names,
        qk_norm=family.qk_norm,
    )
    check_heads(config, where)
    return family, config


def gguf_eos_ids(header: GGUFHeader, config: ModelConfig) -> tuple[int, ...]:
    """Ids that end a generation: end of sequence and, where given, end of turn."""
    found = []
    for key in ("tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"):
        token = header.metadata.get(key)
        if token is None:
            continue
        if not isinstance(token, int) or not 0 <= token < config.vocab_size:
            raise CheckpointError(
                f"{header.path}: {key} is {token!r}; ids must be integers from 0 to {config.vocab_size - 1}."
            )
        found.append(token)
    return tuple(dict.fromkeys(found))


def _vocab_size(header: GGUFHeader, family: Family, options: Options) -> int:
    """Rows of the embedding, which the optional metadata entry must agree with."""
    embed = header.tensors.get(family.gguf_names["embed"])
    if embed is None:
        return options.integer("vocab_size")
    rows = embed.shape[0]
    if options.integer("vocab_size", rows) != rows:
        raise CheckpointError(
            f"{header.path}: vocab_size is {options.get('vocab_size')!r}, but {embed.name!r} has {rows} "
            "rows. The file is inconsistent; fetch it again."
        )
    return rows


def _refuse_unsupported(options: Options, head_dim: int) -> None:
    if options.integer("expert_count", 0, least=0):
        raise UnsupportedModelError(
            f"{options.where}: expert_count is {options.get('expert_count')}; "
            "mixtures of experts are not supported."
        )
    for key, meaning in (
        ("attention.value_length", "values of another size than keys"),
        ("rope.dimension_count", "partial rotary embedding"),
    ):
        if options.integer(key, head_dim) != head_dim:
            raise UnsupportedModelError(
                f"{options.where}: {key} is {options.get(key)} and the head size {head_dim}; "
                f"{meaning} is not supported."
            )


def _windows(family: Family, options: Options, layers: int) -> tuple[int, ...]:
    window = options.integer("attention.sliding_window", 0, least=0)
    if window and family.windows == "layer_types":
        raise UnsupportedModelError(
            f"{options.where}: attention.sliding_window is {window}, but a {family.name} GGUF file does not "
            "say which layers slide. Use the safetensors checkpoint."
        )
    if "attention.sliding_window_pattern" in options.values:
        raise UnsupportedModelError(f"{options.where}: attention.sliding_window_pattern is not supported.")
    return (window,) * layers


def _shortest(value: float) -> float:
    """The shortest decimal that gives the same float32: 1e-05, not 9.999999747378752e-06.

    Metadata is float32; this is the number of the configuration that it was written from.
    """
    return float(str(np.float32(value)))


def _rope(options: Options, source: TensorSource, head_dim: int) -> RopeConfig:
    theta = _shortest(options.number("rope.freq_base", 10000.0))
    kind = options.get("rope.scaling.type", "none")
    # Before the scaling type had a key of its own, this one meant linear.
    factor = options.number("rope.scaling.factor", options.number("rope.scale_linear", 1.0))
    if kind not in ("none", "linear"):
        raise UnsupportedModelError(
            f"{options.where}: rope.scaling.type {kind!r} is not supported; "
            "'none', 'linear' and Llama-3 factors are."
        )
    linear = factor != 1.0 and (kind == "linear" or "rope.scaling.type" not in options.values)
    if _ROPE_FACTORS not in source.tensors:
        return (
            RopeConfig(theta=theta, scaling="linear", factor=_shortest(factor))
            if linear
            else RopeConfig(theta=theta)
        )
    if linear:
        raise UnsupportedModelError(f"{options.where}: linear rope scaling together with {_ROPE_FACTORS!r}.")
    return _llama3(options.where, source, theta, head_dim)


def _llama3(where: str, source: TensorSource, theta: float, head_dim: int) -> RopeConfig:
    """The Llama-3 parameters that give the stored divisors of the rotation frequencies."""
    info = source.tensors[_ROPE_FACTORS]
    if info.shape != (head_dim // 2,) or info.dtype != "F32":
        raise CheckpointError(
            f"{where}: {_ROPE_FACTORS!r} is {info.dtype} {info.shape}; it must be F32 ({head_dim // 2},)."
        )
    stored = source.read(_ROPE_FACTORS, 0, head_dim // 2).astype(np.float64)
    if np.array_equal(stored, np.ones_like(stored)):
        return RopeConfig(theta=theta)
    for exponent in range(4, 21):
        rope = RopeConfig(theta, "llama3", float(stored.max()), _LOW, _HIGH, 2**exponent)
        # The file holds float32 values computed in float32.
        if np.allclose(stored, llama3_divisors(rope, head_dim), rtol=1e-5, atol=0):
            return rope
    raise UnsupportedModelError(
        f"{where}: {_ROPE_FACTORS!r} does not follow the Llama-3 rule with low_freq_factor {_LOW:g} and "
        f"high_freq_factor {_HIGH:g}. Use the safetensors checkpoint, whose config.json holds the parameters."
    )


def llama3_divisors(rope: RopeConfig, head_dim: int) -> npt.NDArray[np.float64]:
    """What Llama 3.1 divides each rotation frequency by: (head_dim / 2,).

    1 for wavelengths below original/high_freq_factor, ``factor`` above original/low_freq_factor, and
    the inverse of a linear blend of both frequencies between (Llama 3.1 model code, ``apply_scaling``).
    """
    wavelength = 2 * math.pi * rope.theta ** (np.arange(0, head_dim, 2) / head_dim)
    cycles = rope.original_max_position / wavelength
    blend = (cycles - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor)
    blend = np.clip(blend, 0.0, 1.0)
    return np.asarray(1.0 / ((1.0 - blend) / rope.factor + blend), dtype=np.float64)
