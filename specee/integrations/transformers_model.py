"""A plain transformers model with the very weights of one of our checkpoints, for comparisons."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from specee.errors import BackendUnavailableError
from specee.models.blocks import widen
from specee.models.checkpoint import Checkpoint
from specee.models.families import by_name
from specee.types import ModelConfig, WeightFormat

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def to_transformers(
    checkpoint: Checkpoint, weights: WeightFormat, dtype: Literal["fp32", "bf16"] | None = None
) -> PreTrainedModel:
    """A ``PreTrainedModel`` in evaluation mode whose parameters are what our model stores under ``weights``.

    Built in memory from the checkpoint's slabs, whatever file they come from, GGUF included. Quantised
    matrices are dequantised, after our quantisation for int8 and int4. ``dtype`` is what transformers holds
    and computes in: fp32 for fp32 weights, else bf16, which rounds dequantised values once more; with
    fp32 they are exactly ours.
    Raises BackendUnavailableError without torch and transformers, ConfigurationError and CheckpointError
    like the checkpoint.
    """
    try:
        import torch
        import transformers  # noqa: F401
    except ImportError as error:
        raise BackendUnavailableError(
            f'torch and transformers are needed ({error}): install them with pip install "specee[hf]"'
        ) from error
    formats = checkpoint.formats(weights)
    family = by_name(checkpoint.config.family)
    held = torch.float32 if (dtype or ("fp32" if weights == "fp32" else "bf16")) == "fp32" else torch.bfloat16
    model = without_weights(checkpoint.config).to(held)
    model.to_empty(device="cpu")
    model.tie_weights()
    rotary = model.model.rotary_emb  # its frequencies are computed when it is made, and not among the slabs
    model.model.rotary_emb = type(rotary)(config=model.config)
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for slab in checkpoint.slabs(formats):
            target = parameters[family.hf_names[slab.role].format(slab.layer)]
            values = torch.from_numpy(widen(slab.array, slab.format, target.shape[-1]))
            if formats.get((slab.role, slab.layer)) == "BF16":
                values = values.to(torch.bfloat16)
            target[slab.row_begin : slab.row_begin + len(slab.array)] = values
    model.eval()
    return model


def without_weights(config: ModelConfig) -> PreTrainedModel:
    """A ``PreTrainedModel`` of that shape on the meta device: neither memory nor random numbers."""
    import torch
    import transformers

    architecture = getattr(transformers, by_name(config.family).architecture)
    major = int(transformers.__version__.split(".")[0])
    with torch.device("meta"):
        model: PreTrainedModel = architecture(architecture.config_class(**_settings(config, major)))
    return model


def _settings(config: ModelConfig, major: int) -> dict[str, Any]:
    """Arguments of the configuration class, in the words of transformers 4 or 5."""
    settings = {
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "max_position_embeddings": config.max_position,
        "rms_norm_eps": config.norm_eps,
        "tie_word_embeddings": config.tied_head,
        "attention_bias": config.qkv_bias,
        "mlp_bias": config.mlp_bias,
        # Special tokens are the caller's business; the classes' defaults may not exist in a small vocabulary.
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
    }
    return settings | _windows(config) | _rope(config, major)


def _windows(config: ModelConfig) -> dict[str, Any]:
    window = max(config.windows, default=0)
    if config.family == "mistral":
        return {"sliding_window": window or None}
    if not window:
        return {}
    kinds = ["sliding_attention" if size else "full_attention" for size in config.windows]
    return {"use_sliding_window": True, "sliding_window": window, "layer_types": kinds}


def _rope(config: ModelConfig, major: int) -> dict[str, Any]:
    rope = config.rope
    scaling: dict[str, Any] = {"rope_type": {"none": "default"}.get(rope.scaling, rope.scaling)}
    if rope.scaling != "none":
        scaling["factor"] = rope.factor
    if rope.scaling == "llama3":
        scaling["low_freq_factor"] = rope.low_freq_factor
        scaling["high_freq_factor"] = rope.high_freq_factor
        scaling["original_max_position_embeddings"] = rope.original_max_position
    if major >= 5:
        return {"rope_parameters": {"rope_theta": rope.theta, **scaling}}
    return {"rope_theta": rope.theta, "rope_scaling": None if rope.scaling == "none" else scaling}
