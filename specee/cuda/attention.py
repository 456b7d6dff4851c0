"""Decode attention by logical position on the device (csrc/cuda/attention.cuh)."""

from __future__ import annotations

from dataclasses import dataclass

from specee.cuda.arrays import Array, checked, view
from specee.cuda.launcher import Launcher, f32, i32
from specee.cuda.tiles import ATTENTION_HEADS, attention_splits, ceil_div
from specee.errors import ConfigurationError

HEAD_DIMS = (64, 128, 256)
_THREADS = 128


@dataclass(frozen=True)
class Paths:
    """Which slot each row finds each of its positions in: a tree row's ancestors in path order, then itself.

    ``slots`` (rows, table) int32; row r attends to positions ``begins[r]`` (0 without) to ``ends[r]``, both
    (rows,) int32; other entries of ``slots`` are never read.
    """

    slots: Array
    ends: Array
    begins: Array | None = None


@dataclass(frozen=True)
class Workspace:
    """Arrays of fp32 between both stages.

    ``partial`` (rows, heads, splits, dim), ``maxima`` and ``sums`` (rows, heads, splits), with splits for the
    whole table (:func:`specee.cuda.tiles.attention_splits`).
    """

    partial: Array
    maxima: Array
    sums: Array


def attention(
    launcher: Launcher,
    queries: Array,
    keys: Array,
    values: Array,
    paths: Paths,
    out: Array,
    workspace: Workspace,
    *,
    scale: float,
) -> None:
    """``out`` (rows, heads, dim) fp32 = softmax(scale * queries keys^T) values, over each row's path.

    ``queries`` (rows, heads, dim) fp32; ``keys``, ``values`` (slots, key heads, dim), both bf16 or both fp16;
    dim 64, 128 or 256; heads a multiple of key heads. Raises ConfigurationError.
    """
    rows, heads, dim = checked("queries", queries, "float32", (None, None, None))
    stored = "float16" if view(keys).dtype == "float16" else "bfloat16"
    number, key_heads, _ = checked("keys", keys, stored, (None, None, dim))
    checked("values", values, stored, (number, key_heads, dim))
    _, table = checked("paths.slots", paths.slots, "int32", (rows, None))
    checked("paths.ends", paths.ends, "int32", (rows,))
    if paths.begins is not None:
        checked("paths.begins", paths.begins, "int32", (rows,))
    _, _, splits, _ = checked("workspace.partial", workspace.partial, "float32", (rows, heads, None, dim))
    for name, array in (("maxima", workspace.maxima), ("sums", workspace.sums)):
        checked(f"workspace.{name}", array, "float32", (rows, heads, splits))
    checked("out", out, "float32", (rows, heads, dim))
    if dim not in HEAD_DIMS or heads % key_heads or splits < attention_splits(table):
        raise ConfigurationError(
            f"head dimension {dim}, {heads} heads on {key_heads}, {splits} splits for a table of {table}: "
            f"allowed are {HEAD_DIMS}, a multiple, and at least {attention_splits(table)}"
        )
    parts = ceil_div(heads // key_heads, ATTENTION_HEADS)
    stage = [workspace.partial, workspace.maxima, workspace.sums]
    launcher.launch(
        f"attention_{'fp16' if stored == 'float16' else 'bf16'}_{dim}",
        (splits, key_heads * parts, rows),
        _THREADS,
        [
            *(queries, keys, values, paths.slots, paths.begins, paths.ends, *stage),
            *(i32(heads), i32(key_heads), i32(table), i32(splits), f32(scale)),
        ],
    )
    launcher.launch(
        "attention_combine", (heads, rows, 1), dim, [*stage, paths.begins, paths.ends, out, i32(splits)]
    )
