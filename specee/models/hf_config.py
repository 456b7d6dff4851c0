"""config.json of transformers 4 and 5 -> ModelConfig."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from specee.errors import CheckpointError, UnsupportedModelError
from specee.models.families import Family, by_architecture
from specee.models.options import MOST_LAYERS, Options
from specee.types import ModelConfig, RopeConfig

_ACTIVATIONS = ("silu", "swish")

_LARGEST = 1 << 24  # what the engine counts with
_SIZES = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_layers",
    "num_heads",
    "num_kv_heads",
    "head_dim",
    "max_position",
)


def read_config(values: Mapping[str, Any], where: str) -> tuple[Family, ModelConfig]:
    """Family and shape from the content of a config.json.

    Raises UnsupportedModelError for an architecture or option outside the supported ones and
    CheckpointError for values that contradict each other; both name ``where``, key and value.
    """
    family = by_architecture(_architecture(values, where), where)
    options = Options(values, where, family.defaults)
    _refuse_unsupported(options)
    heads = options.integer("num_attention_heads")
    hidden = options.integer("hidden_size")
    layers = options.integer("num_hidden_layers", most=MOST_LAYERS)
    config = ModelConfig(
        family=family.name,
        vocab_size=options.integer("vocab_size"),
        hidden_size=hidden,
        intermediate_size=options.integer("intermediate_size"),
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=options.integer("num_key_value_heads", heads),
        head_dim=options.integer("head_dim", hidden // heads),
        max_position=options.integer("max_position_embeddings"),
        norm_eps=options.number("rms_norm_eps", 1e-6),
        rope=_rope(options),
        windows=_windows(family, options, layers),
        tied_head=options.flag("tie_word_embeddings"),
        qkv_bias=_switch(family.qkv_bias, options),
        o_bias=_switch(family.o_bias, options),
        mlp_bias=_switch(family.mlp_bias, options),
        qk_norm=family.qk_norm,
    )
    check_heads(config, where)
    return family, config


def check_heads(config: ModelConfig, where: str) -> None:
    """Raise CheckpointError if the head counts do not divide, the head size is odd, or a size is absurd."""
    for name in _SIZES:
        if not 1 <= (size := getattr(config, name)) <= _LARGEST:
            raise CheckpointError(
                f"{where}: {name} is {size}; allowed is 1 to {_LARGEST}. The file is damaged; fetch it again."
            )
    if config.num_heads % config.num_kv_heads:
        raise CheckpointError(
            f"{where}: {config.num_heads} query heads cannot share {config.num_kv_heads} key-value heads; "
            "the first must be a multiple of the second."
        )
    if config.q_dim > _LARGEST:
        raise CheckpointError(
            f"{where}: {config.num_heads} query heads of size {config.head_dim} are {config.q_dim} wide; "
            f"allowed is {_LARGEST}. The file is damaged; fetch it again."
        )
    if config.head_dim % 2:
        raise CheckpointError(
            f"{where}: head size {config.head_dim} is odd; rotary embedding needs an even one."
        )


def _architecture(values: Mapping[str, Any], where: str) -> str:
    names = values.get("architectures")
    if not isinstance(names, list) or len(names) != 1 or not isinstance(names[0], str):
        raise CheckpointError(
            f"{where}: 'architectures' is {names!r}; it must name one class, such as ['LlamaForCausalLM']."
        )
    return names[0]


def _refuse_unsupported(options: Options) -> None:
    if options.get("quantization_config") is not None:
        method = options.get("quantization_config")
        method = method.get("quant_method") if isinstance(method, Mapping) else method
        raise UnsupportedModelError(
            f"{options.where}: quantization_config {method!r} is not supported; "
            "use the fp32, bf16 or fp16 checkpoint, or a GGUF file."
        )
    activation = options.get("hidden_act", "silu")
    if activation not in _ACTIVATIONS:
        raise UnsupportedModelError(
            f"{options.where}: hidden_act {activation!r} is not supported; only 'silu' is."
        )


def _switch(rule: bool | str, options: Options) -> bool:
    return rule if isinstance(rule, bool) else options.flag(rule)


def _rope(options: Options) -> RopeConfig:
    new, old = options.get("rope_parameters"), options.get("rope_scaling")
    values = new if new is not None else old if old is not None else {}
    if not isinstance(values, Mapping) or any(isinstance(value, Mapping) for value in values.values()):
        raise UnsupportedModelError(
            f"{options.where}: rope parameters {values!r} are not supported; one flat set for all layers is."
        )
    rope = Options(values, f"{options.where}, rope parameters")
    for given in (rope, options):
        if given.number("partial_rotary_factor", 1.0) != 1.0:
            raise UnsupportedModelError(
                f"{options.where}: partial_rotary_factor {given.get('partial_rotary_factor')!r} "
                "is not supported; only 1.0 is."
            )
    theta = rope.number("rope_theta", options.number("rope_theta", 10000.0))
    kind = rope.get("rope_type", rope.get("type")) or "default"
    if kind == "default":
        return RopeConfig(theta=theta)
    if kind == "linear":
        return RopeConfig(theta=theta, scaling="linear", factor=rope.number("factor"))
    if kind == "llama3":
        return _llama3(rope, theta)
    raise UnsupportedModelError(
        f"{options.where}: rope type {kind!r} is not supported; 'default', 'linear' and 'llama3' are."
    )


def _llama3(rope: Options, theta: float) -> RopeConfig:
    low, high = rope.number("low_freq_factor"), rope.number("high_freq_factor")
    if high <= low:
        raise rope.error("high_freq_factor", high, f"greater than low_freq_factor ({low})")
    return RopeConfig(
        theta=theta,
        scaling="llama3",
        factor=rope.number("factor"),
        low_freq_factor=low,
        high_freq_factor=high,
        original_max_position=rope.integer("original_max_position_embeddings"),
    )


def _windows(family: Family, options: Options, layers: int) -> tuple[int, ...]:
    if family.windows == "none":
        return (0,) * layers
    if family.windows == "all":
        window = 0 if options.get("sliding_window") is None else options.integer("sliding_window")
        return (window,) * layers
    return tuple(
        options.integer("sliding_window") if sliding else 0 for sliding in _sliding_layers(options, layers)
    )


def _sliding_layers(options: Options, layers: int) -> list[bool]:
    enabled = options.flag("use_sliding_window") and options.get("sliding_window") is not None
    types = options.get("layer_types")
    if types is None:
        first = options.integer("max_window_layers", layers, least=0)
        return [enabled and index >= first for index in range(layers)]
    if not isinstance(types, list) or len(types) != layers:
        raise options.error("layer_types", types, f"a list of {layers} layer types")
    for kind in types:
        if kind not in ("full_attention", "sliding_attention"):
            raise UnsupportedModelError(
                f"{options.where}: layer type {kind!r} is not supported; "
                "'full_attention' and 'sliding_attention' are."
            )
    if "sliding_attention" in types and not enabled:
        raise CheckpointError(
            f"{options.where}: layer_types has sliding layers, but use_sliding_window is "
            f"{options.get('use_sliding_window')!r} and sliding_window {options.get('sliding_window')!r}; "
            "set both or make every layer 'full_attention'."
        )
    return [kind == "sliding_attention" for kind in types]
