"""The arguments of :meth:`.Backend.draft_head`, checked alike for every backend."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from specee.errors import ConfigurationError
from specee.models.speculator import Adapter, misfit
from specee.types import ModelConfig


def checked_adapter(adapter: Adapter, config: ModelConfig) -> Adapter:
    """The adapter as C-contiguous float32. Raises ConfigurationError for shapes that do not fit the model."""
    parts = (adapter.norm, adapter.down, adapter.up)
    checked = Adapter(*(np.ascontiguousarray(part, np.float32) for part in parts))
    if (wrong := misfit(checked, config)) is not None:
        raise ConfigurationError(f"an adapter's {wrong}; use an adapter that was fitted to this model")
    return checked


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
