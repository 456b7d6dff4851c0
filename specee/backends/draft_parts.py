"""The arguments of :meth:`.Backend.draft_head`, checked alike for every backend."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from specee.errors import ConfigurationError
from specee.models.speculator import Adapter
from specee.types import ModelConfig


def checked_adapter(adapter: Adapter, config: ModelConfig) -> Adapter:
    """The adapter as C-contiguous float32. Raises ConfigurationError for shapes that do not fit the model."""
    hidden, width = config.hidden_size, len(adapter.down)
    wanted = {"norm": (hidden,), "down": (width, hidden), "up": (hidden, width)}
    arrays = {name: np.ascontiguousarray(getattr(adapter, name), np.float32) for name in wanted}
    for name, shape in wanted.items():
        if arrays[name].shape != shape or width == 0:
            raise ConfigurationError(
                f"an adapter's {name} has shape {arrays[name].shape}: for hidden_size {hidden} it must be "
                f"{shape}, with a width of 1 or more; use an adapter that was fitted to this model"
            )
    return Adapter(**arrays)


def checked_vocabulary(vocabulary: npt.ArrayLike, config: ModelConfig) -> npt.NDArray[np.int64]:
    """Draft token ids, ascending.

    Raises ConfigurationError if there are none, or if one is no integer, outside the vocabulary or repeated.
    """
    given = np.asarray(vocabulary)
    if given.ndim != 1 or len(given) == 0 or given.dtype.kind not in "iu":
        raise ConfigurationError(
            f"a draft vocabulary of shape {given.shape} and dtype {given.dtype}: it must be one or more "
            "integer token ids in one dimension, or None for all tokens"
        )
    ids = np.sort(given)
    if ids[0] < 0 or ids[-1] >= config.vocab_size:
        wrong = ids[0] if ids[0] < 0 else ids[-1]
        raise ConfigurationError(
            f"draft vocabulary: token id {wrong} is outside the vocabulary; ids are 0 to "
            f"{config.vocab_size - 1}"
        )
    twice = ids[1:][ids[1:] == ids[:-1]]
    if len(twice):
        raise ConfigurationError(
            f"draft vocabulary: token id {twice[0]} is given more than once; give each id once"
        )
    return ids.astype(np.int64)
