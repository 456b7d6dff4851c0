"""What a speculator drafts with: heads of its exit layers, and its block."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

import numpy as np

from specee.backends.drafter_parts import stored_format
from specee.backends.protocol import Backend, DraftHead, FittedDrafter, FittedExits
from specee.errors import ConfigurationError
from specee.models.speculator import Speculator
from specee.policies import ExitView, ModelView
from specee.types import WeightFormat


class DraftHeads:
    """The draft head of each exit layer: its adapter, if it has one, and the draft vocabulary; and the block.

    Without a speculator there are none. Raises ConfigurationError for one that does not fit the model.
    """

    def __init__(self, backend: Backend, speculator: Speculator | None = None) -> None:
        self._adapted: dict[int, DraftHead] = {}
        self._plain: DraftHead | None = None
        self._whole = backend.draft_head(None, None).bytes
        self._layers = backend.config.num_layers
        self.drafter: FittedDrafter | None = None
        """The speculator's block, None without one."""
        self.drafter_head: DraftHead | None = None
        """What the block's drafts are read off with."""
        self.exits: FittedExits | None = None
        """The speculator's exit predictors, None without."""
        self._exit_view: ExitView | None = None
        if speculator is None:
            return
        if speculator.drafter is not None:
            stored = stored_format(backend.weights)
            self.drafter = backend.drafter(speculator.drafter, stored)
            options = {"normed": True} if speculator.drafter.plain else {}
            self.drafter_head = backend.draft_head(None, speculator.vocabulary, stored, **options)
        if speculator.exits is not None:
            self.exits = backend.exit_predictors(speculator.exits)
            tokens = (
                backend.config.vocab_size if speculator.vocabulary is None else len(speculator.vocabulary)
            )
            if self.exits.candidates > tokens:
                raise ConfigurationError(
                    f"exit predictors of {self.exits.candidates} candidates with a draft vocabulary of "
                    f"{tokens}: it must have as many; make the speculator file again"
                )
            self._exit_view = _exit_view(speculator, backend.weights)
        if speculator.vocabulary is not None:
            self._plain = backend.draft_head(None, speculator.vocabulary)
        for layer, adapter in speculator.adapters.items():
            if not 1 <= layer < self._layers:
                raise ConfigurationError(
                    f"a speculator with an adapter for layer {layer} of a model of {self._layers} layers: "
                    f"allowed are 1..{self._layers - 1}"
                )
            self._adapted[layer] = backend.draft_head(adapter, speculator.vocabulary)

    @property
    def adapted(self) -> tuple[int, ...]:
        """Layers that have an adapter."""
        return tuple(sorted(self._adapted))

    @cached_property
    def view(self) -> ModelView:
        """What a policy sees of the model and these heads."""
        if self._plain is None:
            layers: Iterable[int] = self.adapted
        else:
            layers = range(1, self._layers)
        adapted = tuple([(layer, self.share(layer)) for layer in layers])
        trimmed = self._plain is not None and not self._adapted
        return ModelView(self._layers, adapted, self.drafter_share, trimmed, self._exit_view, self.adapted)

    @property
    def drafter_share(self) -> float | None:
        """Bytes that a draft of the block reads, its head included, over those of the model's own head."""
        if self.drafter is None or self.drafter_head is None:
            return None
        return (self.drafter.bytes + self.drafter_head.bytes) / self._whole

    def share(self, layer: int) -> float:
        """Bytes that the draft head of an exit layer reads, over those of the model's own head."""
        return self.of(layer).bytes / self._whole

    def of(self, layer: int) -> DraftHead:
        """The draft head of an exit layer. Raises ConfigurationError if there is none."""
        head = self._adapted.get(layer, self._plain)
        if head is None:
            known = f"it has adapters for {self.adapted}" if self._adapted else "none is loaded"
            raise ConfigurationError(
                f"exit layer {layer} has no draft head of a speculator ({known}): "
                "load a speculator file that has one, or draft with adapted=False"
            )
        return head


def _exit_view(speculator: Speculator, weights: WeightFormat) -> ExitView | None:
    """Losses count for the weights that they were measured with alone."""
    parts, measured = speculator.exits, speculator.calibration
    if parts is None:
        return None
    shares = tuple(parts.exits.tolist())
    if measured is None or measured.weights != weights:
        return ExitView(parts.layers, shares)
    means = measured.losses.mean(axis=1, dtype=np.float64)
    thresholds = tuple(measured.thresholds.tolist())
    return ExitView(parts.layers, shares, thresholds, tuple(means.tolist()), measured.losses.shape[1])
