"""What policies that draft with one exit layer are told, and the source that it means for a model."""

from __future__ import annotations

from specee.policies import settings
from specee.policies.plans import ExitLayer


class Exit:
    """An exit layer, counted from 1; None is four fifths of the model's layers. ``adapted``: see ExitLayer.

    Raises ConfigurationError.
    """

    def __init__(self, policy: str, exit_layer: int | None, adapted: bool) -> None:
        if exit_layer is not None:
            exit_layer = settings.whole(policy, "exit_layer", exit_layer, 1)
        self._policy, self._layer = policy, exit_layer
        self._adapted = settings.flag(policy, "adapted", adapted)

    def source(self, layers: int) -> ExitLayer:
        """Of a model of ``layers`` layers. Raises ConfigurationError if it has none such below its last."""
        return ExitLayer(settings.exit_layer(self._policy, self._layer, layers), self._adapted)
