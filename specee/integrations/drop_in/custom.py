"""The way in through ``model.generate(custom_generate=...)``, as far as that goes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from specee.errors import ConfigurationError
from specee.integrations.drop_in.accelerated import accelerated
from specee.integrations.drop_in.call import Asked, Call
from specee.integrations.drop_in.decode import decode
from specee.integrations.drop_in.reasons import stock_class

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Ways of decoding that give what greedy decoding or sampling give, only at another speed, ours among them.
_OURS = ("greedy_search", "sample", "assisted_generation")
_BEAMS = ("beam_search", "beam_sample")


def decode_custom(
    model: PreTrainedModel,
    input_ids: Any,
    asked: Asked,
    streamer: Any,
    stop_strings: Any,
    tokenizer: Any,
    prepared: dict[str, Any],
) -> Any:
    """See :func:`specee.custom_generate`; ``prepared`` is everything else that transformers hands over."""
    from specee.integrations.drop_in.model_class import PREPARED

    base: Any = stock_class(model)
    synced, plain = prepared.pop("synced_gpus", None), prepared.pop("streamer", None)
    others = dict(prepared)
    processors, criteria, config = map(others.pop, PREPARED)
    mode = config.get_generation_mode().value
    if mode in _BEAMS:
        accelerated(model).tell(f"it was asked for {mode.replace('_', ' ')}")
        return base._beam_search(model, input_ids, synced_gpus=bool(synced), **prepared)
    if mode not in _OURS:
        raise ConfigurationError(
            f"custom_generate=specee.custom_generate with {mode.replace('_', ' ')}: allowed are greedy "
            "decoding, sampling and beam search; leave custom_generate away"
        )
    if stop_strings is not None:
        criteria = _with_stop_strings(criteria, stop_strings, tokenizer)
        prepared["stopping_criteria"] = criteria

    def stock() -> Any:
        return base._sample(
            model, input_ids, synced_gpus=bool(synced), streamer=streamer or plain, **prepared
        )

    if streamer is not None:
        streamer.put(input_ids.cpu())
    call = Call(input_ids, processors, criteria, config, others, streamer or plain, bool(synced), asked)
    return decode(accelerated(model), model, call, stock)


def _with_stop_strings(criteria: Any, stop_strings: Any, tokenizer: Any) -> Any:
    from transformers import StoppingCriteriaList
    from transformers.generation.stopping_criteria import StopStringCriteria

    if tokenizer is None:
        raise ConfigurationError(
            f"stop_strings={stop_strings!r} need a tokenizer: pass specee_tokenizer=... (transformers hands "
            "no tokenizer to custom_generate)"
        )
    return StoppingCriteriaList([*criteria, StopStringCriteria(tokenizer, stop_strings)])
