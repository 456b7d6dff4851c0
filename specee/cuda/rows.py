"""Rows on their way into and out of layers: embedded, biased, copied; and the slots of their paths."""

from __future__ import annotations

from specee.cuda.arrays import Array, checked
from specee.cuda.launcher import Launcher, i32
from specee.cuda.packing import PackedWeights
from specee.cuda.products import Matrix
from specee.cuda.tiles import TILE_OUTPUTS, TILE_UNIT, ceil_div
from specee.errors import ConfigurationError

_EMBED_THREADS = 128
_THREADS = 256


def embed_rows(launcher: Launcher, tokens: Array, table: Matrix, x: Array) -> None:
    """``x`` (rows, hidden) fp32 = rows ``tokens`` (rows,) int32, all of the vocabulary, of ``table``.

    ``table`` (vocab, hidden) is bf16 or int8 (csrc/cuda/embedding.cuh). Raises ConfigurationError.
    """
    (rows,) = checked("tokens", tokens, "int32", (None,))
    _, hidden = checked("x", x, "float32", (rows, None))
    grid = (ceil_div(hidden, _EMBED_THREADS), rows, 1)
    if not isinstance(table, PackedWeights):
        checked("table", table, "bfloat16", (None, hidden))
        launcher.launch("embed_bf16", grid, _EMBED_THREADS, [tokens, table, x, i32(hidden)])
        return
    if table.stored != "int8" or table.k != hidden:
        raise ConfigurationError(
            f"an embedding of {table.stored} rows of {table.k} for x of {hidden}: allowed is int8 of {hidden}"
        )
    tiles = ceil_div(table.outputs, TILE_OUTPUTS) * hidden // TILE_UNIT
    checked("table.data", table.data, "uint8", (tiles * TILE_OUTPUTS * TILE_UNIT,))
    checked("table.scales", table.scales, "uint16", (tiles * TILE_OUTPUTS,))
    launcher.launch("embed_int8", grid, _EMBED_THREADS, [tokens, table.data, table.scales, x, i32(hidden)])


def add_bias(launcher: Launcher, x: Array, bias: Array) -> None:
    """``x`` (rows, width) fp32 += ``bias`` (width,) fp32. Raises ConfigurationError."""
    rows, width = checked("x", x, "float32", (None, None))
    checked("bias", bias, "float32", (width,))
    grid = (ceil_div(rows * width, _THREADS), 1, 1)
    launcher.launch("add_bias", grid, _THREADS, [x, bias, i32(rows * width), i32(width)])


def copy_rows(launcher: Launcher, x: Array, out: Array) -> None:
    """``out`` (rows, width) fp32 = ``x``. Raises ConfigurationError."""
    rows, width = checked("x", x, "float32", (None, None))
    checked("out", out, "float32", (rows, width))
    grid = (ceil_div(rows * width, _THREADS), 1, 1)
    launcher.launch("copy_rows", grid, _THREADS, [x, out, i32(rows * width)])


def fill_paths(launcher: Launcher, slots: Array, lengths: Array, ends: Array, tails: Array) -> None:
    """``slots`` (rows, table) int32 of each row's path, for attention (csrc/cuda/paths.cuh).

    Position p is in slot p below ``lengths``, and in ``tails`` (rows, depth) int32 from there to ``ends``;
    what is behind stays as it was. ``lengths`` and ``ends`` (rows,) int32. Raises ConfigurationError.
    """
    rows, table = checked("slots", slots, "int32", (None, None))
    checked("lengths", lengths, "int32", (rows,))
    checked("ends", ends, "int32", (rows,))
    _, depth = checked("tails", tails, "int32", (rows, None))
    grid = (ceil_div(table, _THREADS), rows, 1)
    launcher.launch("fill_paths", grid, _THREADS, [slots, lengths, ends, tails, i32(depth), i32(table)])
