"""Rotary embedding, and keys and values into the cache, on the device (csrc/cuda/rotation.cuh)."""

from __future__ import annotations

from dataclasses import dataclass

from specee.cuda.arrays import Array, checked, view
from specee.cuda.attention import HEAD_DIMS
from specee.cuda.launcher import Launcher, f32, i32
from specee.errors import ConfigurationError


@dataclass(frozen=True)
class Turns:
    """``cosines`` and ``sines`` (rows, pairs) fp32 of each row's angles."""

    cosines: Array
    sines: Array


@dataclass(frozen=True)
class Projected:
    """What a product gave, ``values`` (rows, heads, dim) fp32, None for no rows at all.

    ``bias`` (heads * dim,) is added, then each head is normed with ``norm`` (dim,) (Qwen3); None for neither.
    """

    values: Array
    bias: Array | None = None
    norm: Array | None = None


@dataclass(frozen=True)
class Cache:
    """``keys`` and ``values`` of one layer (slots, key heads, dim), both bf16 or both fp16."""

    keys: Array
    values: Array

    @property
    def stored(self) -> str:
        """``"float16"`` or ``"bfloat16"``."""
        return "float16" if view(self.keys).dtype == "float16" else "bfloat16"


def turn_angles(launcher: Launcher, positions: Array, speeds: Array, out: Turns) -> None:
    """Cosine and sine of ``positions`` (rows,) int32 times ``speeds`` (pairs,) fp32.

    Raises ConfigurationError.
    """
    (rows,) = checked("positions", positions, "int32", (None,))
    (pairs,) = checked("speeds", speeds, "float32", (None,))
    checked("out.cosines", out.cosines, "float32", (rows, pairs))
    checked("out.sines", out.sines, "float32", (rows, pairs))
    _check_dim(2 * pairs)
    launcher.launch("turn_angles", (rows, 1, 1), pairs, [positions, speeds, out.cosines, out.sines])


def turn_heads(
    launcher: Launcher,
    queries: Projected | None,
    keys: Projected,
    values: Projected,
    turns: Turns,
    slots: Array,
    cache: Cache,
    *,
    eps: float,
) -> None:
    """Turn ``queries``, if there are some, in place; put turned ``keys``, and ``values``, into ``cache``.

    ``slots`` (rows,) int32, where each row's go, nowhere if it is below 0. ``eps`` is of the norms, if there
    are some. Raises ConfigurationError.
    """
    rows, key_heads, dim = checked("keys.values", keys.values, "float32", (None, None, None))
    heads, queries = 0, queries or Projected(None)
    if queries.values is not None:
        _, heads, _ = checked("queries.values", queries.values, "float32", (rows, None, dim))
    checked("values.values", values.values, "float32", (rows, key_heads, dim))
    for name, part, count in (
        ("queries", queries, heads),
        ("keys", keys, key_heads),
        ("values", values, key_heads),
    ):
        if part.bias is not None:
            checked(f"{name}.bias", part.bias, "float32", (count * dim,))
        if part.norm is not None:
            checked(f"{name}.norm", part.norm, "float32", (dim,))
    _check_dim(dim)
    if values.norm is not None:
        raise ConfigurationError("values have a norm: allowed are norms of queries and keys; leave it out")
    checked("turns.cosines", turns.cosines, "float32", (rows, dim // 2))
    checked("turns.sines", turns.sines, "float32", (rows, dim // 2))
    checked("slots", slots, "int32", (rows,))
    number, _, _ = checked("cache.keys", cache.keys, cache.stored, (None, key_heads, dim))
    checked("cache.values", cache.values, cache.stored, (number, key_heads, dim))
    launcher.launch(
        f"turn_heads_{'fp16' if cache.stored == 'float16' else 'bf16'}",
        (heads + 2 * key_heads, rows, 1),
        dim // 2,
        [
            *(queries.values, keys.values, values.values, queries.bias, keys.bias, values.bias),
            *(queries.norm, keys.norm, turns.cosines, turns.sines, slots, cache.keys, cache.values),
            *(i32(heads), i32(key_heads), f32(eps)),
        ],
    )


def _check_dim(dim: int) -> None:
    if dim not in HEAD_DIMS:
        raise ConfigurationError(f"head dimension {dim}: allowed are {HEAD_DIMS}")
