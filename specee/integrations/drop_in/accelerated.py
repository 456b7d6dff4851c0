"""Which models are accelerated, and with what."""

from __future__ import annotations

import copy
import threading
import warnings
import weakref
from typing import TYPE_CHECKING, Any

from specee.errors import CheckpointError, FallbackWarning
from specee.integrations.drop_in.kept import KeptText
from specee.integrations.drop_in.reasons import of_model
from specee.integrations.drop_in.watch import Watch
from specee.model import Model, load
from specee.policies import Policy, make_policy

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Accelerated:
    """Our engine for one transformers model, and how it decodes.

    ``lock`` is held while the engine computes a step, so that threads take turns; ``kept`` is the latest text
    of a call with one row. ``options`` are those of :func:`specee.load`. Raises what that raises, but for
    models that are not supported: for these there is no engine, and a reason.
    """

    def __init__(self, model: PreTrainedModel, policy: str | Policy, options: dict[str, Any]) -> None:
        self._set_up(policy, options)
        _, reason = self.ready(model)
        if reason is not None:
            self.tell(reason)

    def _set_up(self, policy: str | Policy, options: dict[str, Any] | None = None) -> None:
        make_policy(policy)  # a wrong name is found out now
        self.policy = policy
        self.lock = threading.RLock()
        self.kept = KeptText()
        self._options = options or {}
        self._engine: Model | None = None
        self._failure: str | None = None
        self._watch: Watch | None = None
        self._told: set[str] = set()

    def ready(self, model: PreTrainedModel) -> tuple[Model | None, str | None]:
        """The engine with the weights that the model has now, or why there is none."""
        with self.lock:
            reason = of_model(model)
            if reason is not None:
                return None, reason
            if self._watch is None or self._watch.changed(model):
                self._take_over(model)
            return self._engine, self._failure

    def refresh(self) -> None:
        """Take the weights over anew when they are needed next."""
        with self.lock:
            self._watch = self._engine = None
            self.kept.drop()

    def tell(self, reason: str) -> None:
        """Warn that transformers' own loop is used, once for each reason."""
        if reason not in self._told:
            self._told.add(reason)
            warnings.warn(
                f"generation is left to transformers' own loop: {reason}", FallbackWarning, stacklevel=2
            )

    def policy_for(self, asked: str | Policy | None) -> str | Policy:
        """A policy for one generation, which no other uses."""
        chosen = self.policy if asked is None else asked
        return chosen if isinstance(chosen, str) else copy.deepcopy(chosen)

    def _take_over(self, model: PreTrainedModel) -> None:
        self._watch = self._engine = None  # the old weights go before the new ones come
        self.kept.drop()
        watch = Watch(model)
        try:
            self._engine, self._failure = load(model, **self._options), None
        except CheckpointError as error:  # an architecture, option or format that we do not have
            self._failure = str(error)
        self._watch = watch


_KNOWN: weakref.WeakKeyDictionary[PreTrainedModel, Accelerated] = weakref.WeakKeyDictionary()
_LOCK = threading.RLock()


def accelerated(
    model: PreTrainedModel, policy: str | Policy = "auto", options: dict[str, Any] | None = None
) -> Accelerated:
    """What belongs to a model, made when it is first needed."""
    with _LOCK:
        found = _KNOWN.get(model)
        if found is None:
            found = _KNOWN[model] = Accelerated(model, policy, options or {})
        return found


def register(model: PreTrainedModel, owner: Accelerated) -> None:
    """Let ``owner`` belong to a model."""
    with _LOCK:
        _KNOWN[model] = owner


def forget(model: PreTrainedModel) -> None:
    """Give back what belongs to a model, its engine's memory included."""
    with _LOCK:
        _KNOWN.pop(model, None)


def known(model: PreTrainedModel) -> Accelerated | None:
    """What belongs to a model, if anything."""
    with _LOCK:
        return _KNOWN.get(model)
