"""Checks that stand between a file and a backend: structure first, values while reading."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from specee.errors import CapacityError, CheckpointError, UnsupportedModelError
from specee.models.blocks import QUANTISED, Array, Bytes, block_size, scales
from specee.models.source import TensorInfo
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


_EXPONENTS: Mapping[str, int] = {"F32": 0x7F800000, "F16": 0x7C00, "BF16": 0x7F80}


def check_finite(array: Array, form: str, name: str, row_begin: int, where: str) -> None:
    """Raise CheckpointError if any weight is NaN or infinite; of a quantised block, its scales tell."""
    if (at := _not_finite(array, form)) is not None:
        place = [at[0] + row_begin, *at[1:]]
        raise CheckpointError(
            f"{where}: tensor {name!r} holds a NaN or infinite weight at {place}; weights must be finite. "
            "The checkpoint is damaged; fetch it again."
        )


def check_quantised(rows: Bytes, form: str, name: str, row_begin: int, where: str) -> None:
    """Raise CheckpointError if finite weights did not fit the blocks they were quantised to."""
    if (at := _not_finite(rows, form)) is not None:
        raise CheckpointError(
            f"{where}: tensor {name!r} has weights in row {at[0] + row_begin}, from column {at[1]} on, that "
            f"are too large for the 16-bit scales of {form} blocks. Load it with weights='bf16' or 'fp32'."
        )


def _not_finite(array: Array, form: str) -> list[int] | None:
    """Where the first weight is whose exponent has all bits set (in blocks: whose scale has), if any."""
    if form in QUANTISED:
        index = _not_finite(scales(array.view(np.uint8), form), "F16")
        return None if index is None else [index[0], index[1] * block_size(form)]
    mask = _EXPONENTS[form]
    exponents = (array.view(np.uint32) if form == "F32" else array.view(np.uint16)) & mask
    if not exponents.size or exponents.max() != mask:
        return None
    return [int(i) for i in np.argwhere(exponents == mask)[0]]


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
