"""Why a model, or a call, is left to transformers' own loop. None: it need not be."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from specee.models.families import FAMILIES

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from specee.integrations.drop_in.call import Call
    from specee.types import ModelConfig

# Where the forward functions of modules may come from for us to know what they compute.
_KNOWN = ("transformers.models.", "transformers.activations", "torch.nn.")
# What transformers' preparation may hand to a loop of a causal language model, and we understand.
_UNDERSTOOD = {
    *("attention_mask", "position_ids", "cache_position", "logits_to_keep", "use_cache"),
    *("output_attentions", "output_hidden_states", "cache", "past_key_values", "tokenizer"),
}


def of_model(model: PreTrainedModel) -> str | None:
    """Why the computation of ``model`` is not that of its architecture on this processor."""
    from transformers import GenerationMixin

    config = model.config
    if getattr(config, "is_encoder_decoder", False):
        return "it is an encoder-decoder model"
    if not {family.architecture for family in FAMILIES} & {base.__name__ for base in type(model).__mro__}:
        return f"the architecture {type(model).__name__} is not supported"
    if getattr(config, "quantization_config", None) is not None or getattr(model, "is_quantized", False):
        return "its modules are quantised"
    if len(set((getattr(model, "hf_device_map", None) or {}).values())) > 1:
        return f"it is spread over devices: {sorted(map(str, set(model.hf_device_map.values())))}"
    devices = {str(parameter.device) for parameter in model.parameters()}
    if devices != {"cpu"}:
        return f"its weights are on {', '.join(sorted(devices))}, and our kernels run on the cpu"
    if getattr(stock_class(model), "_sample", None) is not GenerationMixin._sample:
        return "its class has a decoding loop of its own"
    if model.training and getattr(config, "attention_dropout", 0):
        return "it is in training mode and has dropout"
    return _of_modules(model)


def stock_class(model: PreTrainedModel) -> type:
    """The class of a model, below ours if it is accelerated."""
    base: type = getattr(type(model), "specee_base", type(model))
    return base


def _of_modules(model: PreTrainedModel) -> str | None:
    for name, module in model.named_modules():
        where = name or "the model"
        if not _known(stock_class(module)):
            return f"{where} is a {type(module).__name__} (adapter, quantised or changed module)"
        if not _its_own(module):
            return f"the forward of {where} has been replaced"
        hooks = [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]
        if any(not _harmless(hook) for hook in hooks):
            return f"{where} has a forward hook"
    return None


def _its_own(module: Any) -> bool:
    """Whether the forward of a module is that of its class; transformers puts that back on the module."""
    forward = module.__dict__.get("forward")
    own = getattr(forward, "__self__", None) is module
    return forward is None or (own and forward.__func__ is type(module).forward)


@cache
def _known(kind: type) -> bool:
    forward: Any = getattr(kind, "forward", None)
    return str(forward.__module__).startswith(_KNOWN)


def _harmless(hook: Any) -> bool:
    """Those of transformers, which only write down what passes when outputs are asked for."""
    return getattr(hook, "__module__", "") == "transformers.utils.output_capturing"


def of_call(call: Call, config: ModelConfig) -> str | None:
    """Why these arguments of a loop are not for us; ``config`` is the engine's."""
    asked = call.config
    if getattr(asked, "is_assistant", False):
        return "it drafts for another model's assisted decoding"
    if call.synced_gpus:
        return "synced_gpus is set"
    if call.ids.dim() != 2 or call.ids.numel() == 0 or call.others.get("inputs_embeds") is not None:
        return "the prompt is given as inputs_embeds, or is empty"
    if call.record and (asked.output_attentions or asked.output_hidden_states):
        return "attentions or hidden states are asked for, which the engine does not keep"
    strange = sorted(set(call.others) - _UNDERSTOOD - {"inputs_embeds"})
    if strange := [name for name in strange if call.others[name] is not None]:
        return f"{', '.join(strange)} went to the model's forward"
    if any(
        type(processor).__name__ == "UnbatchedClassifierFreeGuidanceLogitsProcessor"
        for processor in call.processors
    ):
        return "guidance needs a second pass of the model"
    needed = call.ids.shape[1] + call.budget
    if needed > config.max_position:
        return f"prompt and new tokens need {needed} positions, and the context holds {config.max_position}"
    return _of_mask(call) or _of_cache(call.cache)


def _of_mask(call: Call) -> str | None:
    mask = call.mask
    if mask.shape != call.ids.shape:
        return f"attention_mask has shape {tuple(mask.shape)}, and the prompt {tuple(call.ids.shape)}"
    if not bool(mask[:, -1].all()) or bool((mask.long().diff(dim=1) < 0).any()):
        return "attention_mask has a 0 right of a 1: our rows are padded on the left"
    positions = call.others.get("position_ids")
    if positions is not None:
        expected = (mask.long().cumsum(-1) - 1).masked_fill(~mask, 0)
        usual = bool(((positions == expected) | ~mask).all()) if positions.dim() == 2 else False
        if not usual:
            return "position_ids are not those of the prompt"
    return None


def _of_cache(cache: Any) -> str | None:
    from transformers import DynamicCache

    if cache is None:
        return None
    if type(cache) is not DynamicCache:
        return f"its cache is a {type(cache).__name__}"
    if cache.get_seq_length():
        return "it goes on from a cache that it was given"
    return None


def named(others: Mapping[str, Any]) -> Any:
    """The cache among a loop's keyword arguments, under the name that this transformers has for it."""
    cache = others.get("cache")
    return others.get("past_key_values") if cache is None else cache
