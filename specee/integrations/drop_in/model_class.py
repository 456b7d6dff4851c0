"""A model's class with our loop in it: all of ``generate`` but the loop stays transformers'.

An accelerated model is given a class that derives from its own and has its name, as torch does for sharded
and parametrised modules: ``isinstance``, saving, moving and pickling work as before, and nobody else's models
change. Of ``generate``, arguments, configuration, processors, criteria and errors are transformers' own;
``_sample``, which greedy decoding and sampling come to, is ours.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from specee.errors import BackendUnavailableError
from specee.integrations.drop_in.accelerated import accelerated, forget
from specee.integrations.drop_in.call import Asked, Call
from specee.integrations.drop_in.decode import decode
from specee.integrations.drop_in.reasons import stock_class

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Loops that stay transformers', by what they are called there.
_LEFT_ALONE = {
    "_beam_search": "beam search",
    "_group_beam_search": "group beam search",
    "_constrained_beam_search": "constrained beam search",
    "_contrastive_search": "contrastive search",
    "_dola_decoding": "DoLa",
    "_assisted_decoding": "assisted decoding (assistant_model, prompt_lookup_num_tokens)",
}
_STREAMER = 8  # its place among generate's arguments, self included
_asked: ContextVar[Asked | None] = ContextVar("_asked", default=None)


def put_on(model: PreTrainedModel) -> None:
    """Give a model the class with our loop.

    Raises BackendUnavailableError for a transformers without the loop that ours takes the place of.
    """
    base = stock_class(model)
    if not hasattr(base, "_sample"):
        import transformers

        raise BackendUnavailableError(
            f"transformers {transformers.__version__} has no GenerationMixin._sample, which specee takes the "
            "place of: install a version from 4.56 on that has"
        )
    model.__class__ = _with_our_loop(base)


def take_off(model: PreTrainedModel) -> None:
    """Give a model its own class back."""
    model.__class__ = stock_class(model)


@functools.cache
def _with_our_loop(base: Any) -> type:
    @functools.wraps(base.generate)
    def generate(
        self: Any, *args: Any, specee_seed: Any = None, specee_policy: Any = None, **kwargs: Any
    ) -> Any:
        own = kwargs.get("past_key_values") is not None or kwargs.get("cache") is not None
        token = _asked.set(Asked(specee_seed, specee_policy, own))
        streamer = args[_STREAMER - 1] if len(args) >= _STREAMER else kwargs.get("streamer")
        try:
            return base.generate(self, *args, **kwargs)
        except BaseException:
            if streamer is not None:
                streamer.end()  # a reader may be waiting
            raise
        finally:
            _asked.reset(token)

    @functools.wraps(base._sample)
    def _sample(
        self: Any, input_ids: Any, synced_gpus: bool = False, streamer: Any = None, **prepared: Any
    ) -> Any:
        def stock() -> Any:
            return base._sample(self, input_ids, synced_gpus=synced_gpus, streamer=streamer, **prepared)

        others = dict(prepared)
        processors, criteria, config = map(others.pop, PREPARED)
        asked = _asked.get() or Asked()
        call = Call(input_ids, processors, criteria, config, others, streamer, bool(synced_gpus), asked)
        return decode(accelerated(self), self, call, stock)

    members = {
        "__module__": base.__module__,
        "__qualname__": base.__qualname__,
        "__doc__": base.__doc__,
        "__enter__": lambda self: self,
        "__exit__": _leave,
        "__reduce_ex__": _reduced,
        "specee_base": base,
        "generate": generate,
        "_sample": _sample,
        **{name: _told(base, name) for name in _LEFT_ALONE if hasattr(base, name)},
    }
    kind: type = type(base)(base.__name__, (base,), members)
    return kind


PREPARED = ("logits_processor", "stopping_criteria", "generation_config")
"""What transformers hands to a loop beside ids and the model's arguments."""


def _told(base: Any, name: str) -> Callable[..., Any]:
    @functools.wraps(getattr(base, name))
    def left_alone(self: Any, *args: Any, **kwargs: Any) -> Any:
        accelerated(self).tell(f"it was asked for {_LEFT_ALONE[name]}")
        return getattr(base, name)(self, *args, **kwargs)

    return left_alone


def _leave(model: PreTrainedModel, *_: object) -> None:
    take_off(model)
    forget(model)


def _reduced(model: PreTrainedModel, protocol: Any) -> Any:
    """Copies and pickles are plain models: what belongs to this one has its own weights."""
    _, _, *state = super(type(model), model).__reduce_ex__(protocol)
    return _blank, (stock_class(model),), *state


def _blank(base: Any) -> Any:
    return base.__new__(base)
