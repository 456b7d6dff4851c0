"""A model that we have loaded, in the shape of a transformers model: without weights in torch."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import torch
import transformers

from specee.errors import UnsupportedModelError
from specee.integrations.drop_in import accelerated, model_class
from specee.integrations.drop_in.accelerated import Accelerated
from specee.integrations.transformers_model import without_weights
from specee.model import Model
from specee.policies import Policy

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class _Given(Accelerated):
    """An engine that was there first. There is nothing to fall back to."""

    def __init__(self, engine: Model, policy: str | Policy) -> None:
        self._set_up(policy)
        self._engine = engine

    def ready(self, model: PreTrainedModel) -> tuple[Model | None, str | None]:
        return self._engine, None

    def tell(self, reason: str) -> None:
        raise UnsupportedModelError(
            f"this needs transformers' own loop ({reason}), and the weights are in our engine only: load the "
            "model with transformers, and use specee.accelerate(model)"
        )


def wrap(model: Model, policy: str | Policy) -> PreTrainedModel:
    """See :func:`specee.as_transformers`."""
    shape = without_weights(model.config).eval()
    checkpoint = model.checkpoint
    known = {**checkpoint.generation_defaults, "eos_token_id": list(checkpoint.eos_token_ids) or None}
    shape.generation_config = transformers.GenerationConfig(
        **{**known, "pad_token_id": checkpoint.pad_token_id}
    )
    model_class.put_on(shape)
    ours: Any = type(shape)
    shape.__class__ = _on_cpu(ours)
    accelerated.register(shape, _Given(model, policy))
    return shape


@functools.cache
def _on_cpu(base: Any) -> type:
    """Where there are no tensors, there is nothing to ask for a device, nor to move.

    The tokenizer is known, so stop strings need none, which pipelines do not hand on.
    """

    @functools.wraps(base.generate)
    def generate(self: Any, *args: Any, **kwargs: Any) -> Any:
        engine, _ = accelerated.accelerated(self).ready(self)
        if kwargs.get("stop_strings") and kwargs.get("tokenizer") is None and engine is not None:
            kwargs["tokenizer"] = tokenizer(engine)
        return base.generate(self, *args, **kwargs)

    members = {
        "__module__": base.__module__,
        "__qualname__": base.__qualname__,
        "device": property(lambda _: torch.device("cpu")),
        "to": lambda self, *_, **__: self,
        "generate": generate,
    }
    kind: type = type(base)(base.__name__, (base,), members)
    return kind


def tokenizer(model: Model) -> Any:
    """See :func:`specee.as_tokenizer`."""
    own = model.tokenizer
    special = {name: text for name, text in vars(own.special).items() if text is not None}
    wrapped = transformers.PreTrainedTokenizerFast(
        tokenizer_object=own.backend,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],  # the models take no other
        **special,
    )
    wrapped.chat_template = own.chat_template
    return wrapped
