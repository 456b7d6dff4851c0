"""Notices that a model's weights are not those that were taken over."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    import torch
    from transformers import PreTrainedModel

_VALUES = 64  # of each parameter, spread over it


class _Seen(NamedTuple):
    """A parameter as it was: who, where, how often written to, and some of its values."""

    identity: tuple[int, int, int | None]
    values: np.ndarray[Any, Any]
    bytes: bytes


class Watch:
    """The parameters of a model at one moment.

    A new tensor, a new place in memory, or a write that torch counts (an optimiser's step,
    ``load_state_dict``) is a change. Writes through ``.data`` are not counted by torch: they are noticed if
    any of 64 values of a parameter has another bit, as after merging an adapter.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self._seen = [_look(parameter) for parameter in _parameters(model)]

    def changed(self, model: PreTrainedModel) -> bool:
        """Whether the weights may be others by now."""
        now = [_identity(parameter) for parameter in _parameters(model)]
        if now != [seen.identity for seen in self._seen]:
            return True
        return any(seen.values.tobytes() != seen.bytes for seen in self._seen)


def _parameters(model: PreTrainedModel) -> Iterator[torch.Tensor]:
    parameters: Iterator[torch.Tensor] = model.parameters()
    return parameters


def _identity(parameter: torch.Tensor) -> tuple[int, int, int | None]:
    # Tensors made in inference mode have no counter.
    version = None if parameter.is_inference() else parameter._version
    return id(parameter), parameter.data_ptr(), version


def _look(parameter: torch.Tensor) -> _Seen:
    import torch

    flat = parameter.detach().reshape(-1)
    some = flat[:: max(1, flat.numel() // _VALUES)]
    bits = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[some.element_size()]
    values = some.view(bits).numpy()  # a view, as long as the parameter is contiguous
    return _Seen(_identity(parameter), values, values.tobytes())
