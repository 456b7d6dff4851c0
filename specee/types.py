"""Plain data shared by every layer of the package; nothing here imports numpy, torch or a backend."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

WeightFormat = Literal["fp32", "bf16", "packed", "int8", "int4"]
"""How the matrices of a model are stored; :mod:`specee.models.formats` says what that means for each."""
KVDtype = Literal["fp32", "bf16", "fp16"]

FinishReason = Literal["eos", "stop", "length"]
"""Why a text is over: an end-of-text token, a stop string or the user's own check, the budget."""

DEFAULT_KV: Mapping[WeightFormat, KVDtype] = {
    "fp32": "fp32",
    "bf16": "bf16",
    "packed": "fp16",
    "int8": "fp16",
    "int4": "fp16",
}
"""The cache that goes with each weight format when none is asked for."""


@dataclass(frozen=True)
class RopeConfig:
    """Rotary position embedding (rotate-half convention).

    ``scaling`` is ``"none"``, ``"linear"`` (positions divided by ``factor``) or ``"llama3"`` (the
    wavelength-dependent rule of Llama 3.1, which uses the remaining fields).
    """

    theta: float = 10000.0
    scaling: Literal["none", "linear", "llama3"] = "none"
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_position: int = 8192


@dataclass(frozen=True)
class ModelConfig:
    """Shape of a decoder-only transformer, the same for every family and file format.

    ``windows[l]`` is the sliding window of layer ``l`` in positions (a row at position p attends to
    positions ``max(0, p - window + 1) .. p``), 0 for full attention.
    """

    family: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    max_position: int
    norm_eps: float
    rope: RopeConfig
    windows: tuple[int, ...]
    tied_head: bool
    qkv_bias: bool = False
    o_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False

    @property
    def q_dim(self) -> int:
        """Rows of the query projection: ``num_heads * head_dim``."""
        return self.num_heads * self.head_dim

    @property
    def kv_dim(self) -> int:
        """Rows of the key (and value) projection: ``num_kv_heads * head_dim``."""
        return self.num_kv_heads * self.head_dim


@dataclass(frozen=True)
class RowInfo:
    """One row of a sequence, named by its cache ``slot``.

    A committed position p lives in slot p. A speculative row lives in a slot at or past the committed
    length. ``parent`` is the slot of the row before it on its path (-1 for position 0), ``position``
    its depth in the text, ``done`` the number of layers it has been through.
    """

    slot: int
    token: int
    parent: int
    position: int
    done: int


@dataclass(frozen=True)
class Sampling:
    """How to draw a token from logits, in this order.

    ``repetition_penalty`` divides the positive logits of tokens on the row's path (prompt included) by it,
    and multiplies their negative ones; 1 is off (Keskar et al., 2019). It counts when greedy too. Then,
    unless ``temperature`` is 0 (greedy; all that follows is ignored): logits / ``temperature``; the
    ``top_k`` largest (0: off); the smallest set that holds ``top_p`` of the mass (1: off); tokens at least
    ``min_p`` times as probable as the likeliest (0: off; Nguyen et al., 2024). The noise depends on
    (``seed``, position, token id) only.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0

    @property
    def greedy(self) -> bool:
        """The token is that of the largest logit, as it is."""
        return self.temperature == 0 and self.repetition_penalty == 1
