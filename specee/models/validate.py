"""Checks that stand between a file and a backend: structure first, values while reading."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from specee.errors import CapacityError, CheckpointError, UnsupportedModelError
from specee.models.source import Array, TensorInfo
from specee.types import ModelConfig


def check_names(
    needed: Iterable[str], ignored: Sequence[str], tensors: Mapping[str, TensorInfo], where: str
) -> None:
    """Every needed tensor is there, and nothing that would be silently left out.

    ``ignored`` are endings of names that may be present and are not used.
    """
    needed = set(needed)
    missing = sorted(needed - tensors.keys())
    if missing:
        raise CheckpointError(
            f"{where}: {len(missing)} of {len(needed)} tensors are missing: {_some(missing)}. "
            "Fetch the checkpoint again, all of its files."
        )
    unknown = sorted(name for name in tensors.keys() - needed if not name.endswith(tuple(ignored)))
    if unknown:
        raise UnsupportedModelError(
            f"{where}: {len(unknown)} tensors have no place in this architecture: {_some(unknown)}. "
            "Their effect would be lost; merge adapters into the weights and check the configuration."
        )


def check_tensor(name: str, info: TensorInfo, shape: tuple[int, ...], dtypes: Sequence[str]) -> None:
    """Raise if the tensor's shape is not ``shape`` or its dtype not one of ``dtypes``."""
    if info.shape != shape:
        raise CheckpointError(
            f"{info.where}: tensor {name!r} has shape {info.shape}, the configuration requires {shape}. "
            "Configuration and weights do not belong together, or one is damaged."
        )
    if info.dtype not in dtypes:
        raise UnsupportedModelError(
            f"{info.where}: tensor {name!r} has dtype {info.dtype}; supported are {', '.join(dtypes)}."
        )


def check_finite(array: Array, name: str, row_begin: int, where: str) -> None:
    """Raise CheckpointError if any weight is NaN or infinite: all exponent bits set."""
    bits, mask = {
        np.dtype(np.float32): (np.uint32, 0x7F800000),
        np.dtype(np.float16): (np.uint16, 0x7C00),
        np.dtype(np.uint16): (np.uint16, 0x7F80),
    }[array.dtype]
    exponents = array.view(bits) & bits(mask)
    if exponents.size and exponents.max() == mask:
        index = np.argwhere(exponents == mask)[0]
        at = [int(index[0]) + row_begin, *(int(i) for i in index[1:])]
        raise CheckpointError(
            f"{where}: tensor {name!r} holds a NaN or infinite weight at {at}; weights must be finite. "
            "The checkpoint is damaged; fetch it again."
        )


def check_vocabulary(highest_id: int, config: ModelConfig, where: str) -> None:
    """Raise CheckpointError if the tokenizer can produce an id that has no embedding."""
    if highest_id >= config.vocab_size:
        raise CheckpointError(
            f"{where}: the tokenizer has token id {highest_id}, but the model has {config.vocab_size} "
            f"embeddings (ids 0 to {config.vocab_size - 1}). Tokenizer and weights do not belong together."
        )


def check_context(requested: int, config: ModelConfig, where: str) -> None:
    """Raise CapacityError if ``requested`` positions are more than the model was made for."""
    if not 1 <= requested <= config.max_position:
        raise CapacityError(
            f"{where}: a context of {requested} was requested; the model supports 1 to "
            f"{config.max_position}. "
            "Ask for a context in this range."
        )


def _some(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names[:3]) + (", ..." if len(names) > 3 else "")
