"""The ways in for users of transformers; torch and transformers are imported when they are called."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from specee.errors import BackendUnavailableError, ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence as Seq

    from transformers import PreTrainedModel

    from specee.model import Model
    from specee.policies import Policy

Some = TypeVar("Some", bound="PreTrainedModel")


def accelerate(model: Some, *, policy: str | Policy = "auto", **options: Any) -> Some:
    """Let a transformers model generate with our engine, and return it.

    ``generate`` takes and returns what it did, and pipelines, streamers, processors and criteria work with
    it; beside that it takes ``specee_seed`` (of sampling; one number, or one a row) and ``specee_policy``.
    What the engine cannot do goes through transformers' own loop, with one :class:`.FallbackWarning` for each
    reason. The engine holds weights of its own, taken from the model; when the model's change it takes them
    again (:func:`refresh`).

    ``policy``: as for :meth:`.Model.generate`. ``options``: those of :func:`specee.load`.
    :func:`restore` undoes it, and so does the end of a ``with`` statement::

        with specee.accelerate(model):
            model.generate(**inputs)

    Raises ConfigurationError for what is no ``PreTrainedModel`` that can generate or an option that is not
    allowed, and what :func:`specee.load` raises for the machine's sake.
    """
    _check(model)
    from specee.integrations.drop_in import accelerated, model_class

    accelerated.forget(model)
    accelerated.accelerated(model, policy, options)
    model_class.put_on(model)
    return model


def restore(model: Some) -> Some:
    """Undo :func:`accelerate`, give the engine's memory back, and return the model. Never too often."""
    _check(model)
    from specee.integrations.drop_in import accelerated, model_class

    model_class.take_off(model)
    accelerated.forget(model)
    return model


def refresh(model: PreTrainedModel) -> None:
    """Have the engine of an accelerated model take its weights anew.

    Needed only after changes that :class:`.drop_in.watch.Watch` cannot see: through ``.data`` or another
    library, at a few values. Raises ConfigurationError for a model that is not accelerated.
    """
    _check(model)
    from specee.integrations.drop_in import accelerated

    found = accelerated.known(model)
    if found is None:
        raise ConfigurationError("this model is not accelerated: call specee.accelerate(model) first")
    found.refresh()


def as_transformers(model: Model, *, policy: str | Policy = "auto") -> PreTrainedModel:
    """A model of :func:`specee.load` as a transformers model, for pipelines and other clients.

    ::

        model = specee.load()
        tell = transformers.pipeline(
            "text-generation", model=specee.as_transformers(model), tokenizer=specee.as_tokenizer(model)
        )

    It holds no weights in torch, so it can generate and nothing else: what :func:`accelerate` would hand to
    transformers' own loop raises UnsupportedModelError. Raises BackendUnavailableError without torch and
    transformers, ConfigurationError for a policy that is not there.
    """
    _import()
    from specee.integrations.drop_in import weightless

    return weightless.wrap(model, policy)


def as_tokenizer(model: Model) -> Any:
    """The tokenizer of a model as a ``PreTrainedTokenizerFast``, chat template included.

    Raises BackendUnavailableError without transformers, ConfigurationError if the model has no tokenizer.
    """
    _import()
    from specee.integrations.drop_in import weightless

    return weightless.tokenizer(model)


def custom_generate(
    model: PreTrainedModel,
    input_ids: Any,
    *,
    specee_seed: int | Seq[int] | None = None,
    specee_policy: str | Policy | None = None,
    specee_streamer: Any = None,
    specee_tokenizer: Any = None,
    stop_strings: str | list[str] | None = None,
    **prepared: Any,
) -> Any:
    """Decode for ``model.generate(..., custom_generate=specee.custom_generate)``, without changing the model.

    The engine is made at the first call and kept as long as the model lives, or until :func:`restore`.
    transformers hands neither streamer nor tokenizer to functions like this one: pass ``specee_streamer``
    instead of ``streamer``, and with ``stop_strings`` ``specee_tokenizer``. Everything else is as in
    :func:`accelerate`.
    """
    from specee.integrations.drop_in.call import Asked
    from specee.integrations.drop_in.custom import decode_custom

    # Whether the cache is the caller's is not said before transformers 5: fill it then, somebody may look.
    asked = Asked(specee_seed, specee_policy, own_cache=True)
    try:
        return decode_custom(
            model, input_ids, asked, specee_streamer, stop_strings, specee_tokenizer, prepared
        )
    except BaseException:
        if specee_streamer is not None:
            specee_streamer.end()  # a reader may be waiting
        raise


def _check(model: Any) -> None:
    _import()
    import transformers

    if not isinstance(model, transformers.PreTrainedModel) or not hasattr(model, "generate"):
        raise ConfigurationError(
            f"model is a {type(model).__name__}: a transformers PreTrainedModel that can generate is needed"
        )


def _import() -> None:
    try:
        import torch  # noqa: F401
        import transformers  # noqa: F401
    except ImportError as error:
        raise BackendUnavailableError(
            f'torch and transformers are needed ({error}): install them with pip install "specee[hf]"'
        ) from error
