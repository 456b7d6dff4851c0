"""Products with matrices of any format, and rows as each of them wants its inputs.

A matrix is bf16 (outputs, k), or :class:`PackedWeights`. Rows that enter a product are bf16 (rows, k) for
the one, :class:`QuantisedRows` for the other: ``Inputs``.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from specee.cuda.arrays import Array, checked
from specee.cuda.launcher import Argument, Launcher, f32, i32
from specee.cuda.linear import QuantisedRows, linear_bf16, linear_packed, quantise_rows, round_rows
from specee.cuda.packing import PackedWeights
from specee.cuda.tiles import LANES, TILE_UNIT, ceil_div
from specee.errors import ConfigurationError

Inputs: TypeAlias = Any  # bf16 array, or QuantisedRows
Matrix: TypeAlias = Any  # bf16 array, or PackedWeights

_NORM_THREADS = 256
_THREADS = 256


def multiply(launcher: Launcher, x: Inputs, weights: Matrix, out: Array, *, add: bool = False) -> None:
    """``out`` (rows, outputs) fp32 = or += ``x`` times ``weights``. Raises ConfigurationError."""
    if isinstance(weights, PackedWeights):
        linear_packed(launcher, _quantised(x), weights, out, add=add)
    else:
        linear_bf16(launcher, x, weights, out, add=add)


def prepare_rows(launcher: Launcher, x: Array, out: Inputs) -> None:
    """``x`` (rows, k) fp32 as products take it. Raises ConfigurationError."""
    if isinstance(out, QuantisedRows):
        quantise_rows(launcher, x, out)
    else:
        round_rows(launcher, x, out)


def norm_rows(
    launcher: Launcher, x: Array, weight: Array, out: Inputs, *, eps: float, which: Array | None = None
) -> None:
    """``x * weight / sqrt(mean(x^2) + eps)`` as products take it (csrc/cuda/rms_norm.cuh).

    ``x`` (rows, hidden) and ``weight`` (hidden,) fp32; with ``which`` (any,) int32 these rows of it alone.
    Quantised, ``out`` may be columns of longer rows. Raises ConfigurationError.
    """
    rows, hidden = checked("x", x, "float32", (None, None))
    if which is not None:
        (rows,) = checked("which", which, "int32", (None,))
    checked("weight", weight, "float32", (hidden,))
    kernel, written, stride = _written("norm_rows", out, rows, hidden)
    arguments = [x, which, weight, *written, i32(hidden), i32(stride), f32(eps)]
    launcher.launch(kernel, (rows, 1, 1), _NORM_THREADS, arguments)


def swiglu_rows(
    launcher: Launcher,
    gate: Array,
    up: Array | None,
    out: Inputs,
    *,
    gate_bias: Array | None = None,
    up_bias: Array | None = None,
) -> None:
    """``silu(gate + gate_bias) * (up + up_bias)`` as products take it (csrc/cuda/swiglu.cuh).

    ``gate``, ``up`` (rows, width) fp32, ``up`` may be left out; biases (width,) fp32.
    Raises ConfigurationError.
    """
    rows, width = checked("gate", gate, "float32", (None, None))
    if up is not None:
        checked("up", up, "float32", (rows, width))
    for name, bias in (("gate_bias", gate_bias), ("up_bias", up_bias)):
        if bias is not None:
            checked(name, bias, "float32", (width,))
    kernel, written, stride = _written("swiglu", out, rows, width)
    if stride != width:
        raise ConfigurationError(
            f"out's rows are {stride} numbers apart: allowed is {width}; give whole rows"
        )
    numbers = rows * width
    threads = numbers
    if isinstance(out, QuantisedRows):
        numbers //= TILE_UNIT
        threads = numbers * LANES
    launcher.launch(
        kernel,
        (ceil_div(threads, _THREADS), 1, 1),
        _THREADS,
        [gate, up, gate_bias, up_bias, *written, i32(numbers), i32(width)],
    )


def _written(kernel: str, out: Inputs, rows: int, width: int) -> tuple[str, list[Argument], int]:
    """The kernel that writes ``out``, its arrays, and how many numbers its rows are apart."""
    if not isinstance(out, QuantisedRows):
        checked("out", out, "bfloat16", (rows, width))
        return f"{kernel}_bf16", [out], width
    if width % TILE_UNIT:
        raise ConfigurationError(f"rows of {width} numbers: allowed are multiples of {TILE_UNIT}")
    return f"{kernel}_int8", [out.q, out.scales, out.sums], out.stride(rows, width)


def _quantised(x: Inputs) -> QuantisedRows:
    if isinstance(x, QuantisedRows):
        return x
    raise ConfigurationError("packed weights multiply quantised rows: prepare rows as QuantisedRows")
