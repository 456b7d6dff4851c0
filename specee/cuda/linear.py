"""Row-linear on the device: activations prepared once, then products with any matrices."""

from __future__ import annotations

from dataclasses import dataclass

from specee.cuda.arrays import Array, checked, checked_rows
from specee.cuda.launcher import Launcher, i32
from specee.cuda.packing import PackedWeights
from specee.cuda.tiles import (
    LANES,
    LINEAR_WARPS,
    MAX_LINEAR_ROWS,
    TILE_OUTPUTS,
    TILE_UNIT,
    ceil_div,
    row_tiles,
)
from specee.errors import ConfigurationError

_PREPARE_THREADS = 256


@dataclass(frozen=True)
class QuantisedRows:
    """Rows in blocks of 32: ``q`` int8 (rows, k), ``scales`` and ``sums`` fp32 (rows, k / 32)."""

    q: Array
    scales: Array
    sums: Array

    def columns(self, begin: int, end: int) -> QuantisedRows:
        """Numbers ``begin`` to ``end`` of each row, whole blocks of them, to be written."""
        blocks = slice(begin // TILE_UNIT, end // TILE_UNIT)
        return QuantisedRows(self.q[:, begin:end], self.scales[:, blocks], self.sums[:, blocks])

    def stride(self, rows: int, k: int) -> int:
        """Numbers from one row to the next, of which each has ``k``. Raises ConfigurationError."""
        stride = checked_rows("out.q", self.q, "int8", rows, k)
        for name, array in (("scales", self.scales), ("sums", self.sums)):
            blocks = checked_rows(f"out.{name}", array, "float32", rows, k // TILE_UNIT)
            if blocks * TILE_UNIT != stride:
                raise ConfigurationError(
                    f"out.{name}'s rows are {blocks} blocks apart, and out.q's {stride} numbers: allowed is "
                    f"a block for each {TILE_UNIT}; cut all three alike"
                )
        return stride


def round_rows(launcher: Launcher, x: Array, out: Array) -> None:
    """``out`` (rows, k) bf16 = ``x`` (rows, k) fp32, to nearest even. Raises ConfigurationError."""
    rows, k = checked("x", x, "float32", (None, None))
    checked("out", out, "bfloat16", (rows, k))
    grid = (ceil_div(rows * k, _PREPARE_THREADS), 1, 1)
    launcher.launch("round_rows", grid, _PREPARE_THREADS, [x, out, i32(rows * k)])


def quantise_rows(launcher: Launcher, x: Array, out: QuantisedRows) -> None:
    """Quantise ``x`` (rows, k) fp32, k a multiple of 32 (docs/numerics.md).

    ``out`` may be columns of longer rows. Raises ConfigurationError.
    """
    rows, k = checked("x", x, "float32", (None, None))
    _check_k(k)
    each, stride = k // TILE_UNIT, out.stride(rows, k) // TILE_UNIT
    blocks = rows * each
    grid = (ceil_div(blocks * LANES, _PREPARE_THREADS), 1, 1)
    numbers = [i32(blocks), i32(each), i32(stride)]
    launcher.launch("quantise_rows", grid, _PREPARE_THREADS, [x, out.q, out.scales, out.sums, *numbers])


def linear_bf16(launcher: Launcher, x: Array, weights: Array, out: Array, *, add: bool = False) -> None:
    """``out`` (rows, outputs) fp32 = or += ``x`` (rows, k) times ``weights`` (outputs, k), both bf16.

    1 to 64 rows, k a multiple of 32. Raises ConfigurationError.
    """
    rows, k = checked("x", x, "bfloat16", (None, None))
    outputs, _ = checked("weights", weights, "bfloat16", (None, k))
    checked("out", out, "float32", (rows, outputs))
    _check_k(k)
    _launch(launcher, "bf16", [weights, x], out, outputs, k, rows, add)


def linear_packed(
    launcher: Launcher, x: QuantisedRows, weights: PackedWeights, out: Array, *, add: bool = False
) -> None:
    """``out`` (rows, outputs) fp32 = or += ``x`` times packed weights. Raises ConfigurationError."""
    rows, k = checked("x.q", x.q, "int8", (None, weights.k))
    _check_quantised(x, rows, k)
    tiles = ceil_div(weights.outputs, TILE_OUTPUTS) * k // TILE_UNIT
    four = weights.stored == "int4"
    checked("weights.data", weights.data, "uint8", (tiles * TILE_OUTPUTS * TILE_UNIT // (2 if four else 1),))
    checked("weights.scales", weights.scales, "uint16", (tiles * TILE_OUTPUTS * (2 if four else 1),))
    checked("out", out, "float32", (rows, weights.outputs))
    inputs = [weights.data, weights.scales, x.q, x.scales, x.sums]
    _launch(launcher, weights.stored, inputs, out, weights.outputs, k, rows, add)


def _launch(
    launcher: Launcher,
    stored: str,
    inputs: list[Array],
    out: Array,
    outputs: int,
    k: int,
    rows: int,
    add: bool,
) -> None:
    if not 1 <= rows <= MAX_LINEAR_ROWS:
        raise ConfigurationError(f"{rows} rows: allowed are 1..{MAX_LINEAR_ROWS}; cut them into passes")
    numbers = [i32(outputs), i32(k), i32(rows), i32(int(add))]
    grid = (ceil_div(outputs, TILE_OUTPUTS), 1, 1)
    launcher.launch(
        f"linear_{stored}_{row_tiles(rows)}", grid, LINEAR_WARPS * LANES, [*inputs, out, *numbers]
    )


def _check_k(k: int) -> None:
    if k % TILE_UNIT or k == 0:
        raise ConfigurationError(f"k={k}: allowed are multiples of {TILE_UNIT}")


def _check_quantised(rows_of: QuantisedRows, rows: int, k: int) -> None:
    checked("q", rows_of.q, "int8", (rows, k))
    checked("scales", rows_of.scales, "float32", (rows, k // TILE_UNIT))
    checked("sums", rows_of.sums, "float32", (rows, k // TILE_UNIT))
