"""Which format every matrix of a model is stored in, for a choice of weights.

========  =====================================================================================
fp32      F32
bf16      BF16
packed    a GGUF file's own, where a kernel exists for it: mixed files are normal
int8      Q8_0, quantised at load
int4      Q4_1, quantised at load; the embedding and the head, which are more sensitive, Q8_0
========  =====================================================================================

Names of stored formats are GGUF's, see :mod:`specee.models.blocks`. Norms and biases are always fp32.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias, get_args

from specee.errors import ConfigurationError
from specee.models.blocks import FLOATS, QUANTISED
from specee.models.table import Key, matrices
from specee.types import ModelConfig, WeightFormat

Formats: TypeAlias = dict[Key, str]
"""Stored format of every matrix."""

WEIGHTS: tuple[WeightFormat, ...] = get_args(WeightFormat)

_LANES = 16  # outputs that the kernels hold in one vector
_MADE = {"fp32": "F32", "bf16": "BF16", "int8": "Q8_0", "int4": "Q4_1"}


def made_formats(config: ModelConfig, weights: WeightFormat) -> Formats:
    """Formats that do not depend on the file. Raises ConfigurationError for those that do."""
    if weights not in _MADE:
        raise ConfigurationError(
            f"weights={weights!r}: allowed without a GGUF file are {', '.join(map(repr, _MADE))}"
        )
    formats = dict.fromkeys(matrices(config), _MADE[weights])
    if weights == "int4":
        formats |= {key: "Q8_0" for key in formats if key[0] in ("embed", "head")}
    return formats


def packed_formats(config: ModelConfig, types: Mapping[Key, str]) -> Formats:
    """The formats of a file whose tensors have ``types``, kept where products can be computed with them.

    A matrix of a type without kernels is stored BF16. q, k and v are one product, and so are gate and up:
    those that cannot share one in their formats are stored F32.
    """
    formats = {key: _kept(types[key]) for key in matrices(config)}
    for layer in range(config.num_layers):
        _agree(formats, [("gate", layer), ("up", layer)])
        if config.head_dim % _LANES:  # else each of the three begins in a block of outputs of its own
            _agree(formats, [("q", layer), ("k", layer), ("v", layer)])
    return formats


def _kept(kind: str) -> str:
    return kind if kind in FLOATS or kind in QUANTISED else "BF16"


def _agree(formats: Formats, keys: list[Key]) -> None:
    if len({formats[key] for key in keys}) > 1:
        formats.update(dict.fromkeys(keys, "F32"))
