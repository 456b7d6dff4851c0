"""Logits of a few candidates of each row, with the bits of the whole head (csrc/cuda/candidates.cuh)."""

from __future__ import annotations

from specee.cuda.arrays import Array, checked
from specee.cuda.launcher import Launcher, i32
from specee.cuda.linear import QuantisedRows
from specee.cuda.packing import PackedWeights
from specee.cuda.products import Inputs, Matrix
from specee.cuda.tiles import LANES, LINEAR_WARPS, TILE_OUTPUTS, TILE_UNIT, ceil_div
from specee.errors import ConfigurationError


def candidate_logits(launcher: Launcher, x: Inputs, head: Matrix, tokens: Array, logits: Array) -> None:
    """``logits`` (rows, k) fp32 of ``tokens`` (rows, k) int32, 1 to 16, all of them of the vocabulary.

    ``x``: normed rows as :func:`specee.cuda.products.norm_rows` leaves them; ``head`` (vocab, hidden) is bf16
    or int8. Raises ConfigurationError.
    """
    rows, count = checked("tokens", tokens, "int32", (None, None))
    checked("logits", logits, "float32", (rows, count))
    if not 1 <= count <= TILE_OUTPUTS:
        raise ConfigurationError(f"{count} candidates a row: allowed are 1..{TILE_OUTPUTS}")
    grid, threads = (1, rows, 1), LINEAR_WARPS * LANES
    if not isinstance(head, PackedWeights):
        _, hidden = checked("head", head, "bfloat16", (None, None))
        checked("x", x, "bfloat16", (rows, hidden))
        _check_hidden(hidden)
        numbers = [i32(count), i32(hidden)]
        launcher.launch("candidates_bf16", grid, threads, [head, x, tokens, logits, *numbers])
        return
    hidden = head.k
    if head.stored != "int8" or not isinstance(x, QuantisedRows):
        raise ConfigurationError(
            f"a head of {head.stored} weights and rows of {type(x).__name__}: allowed are bf16 for both, or "
            "int8 and QuantisedRows"
        )
    units = hidden // TILE_UNIT
    tiles = ceil_div(head.outputs, TILE_OUTPUTS) * units
    checked("head.data", head.data, "uint8", (tiles * TILE_OUTPUTS * TILE_UNIT,))
    checked("head.scales", head.scales, "uint16", (tiles * TILE_OUTPUTS,))
    checked("x.q", x.q, "int8", (rows, hidden))
    for name, array in (("scales", x.scales), ("sums", x.sums)):
        checked(f"x.{name}", array, "float32", (rows, units))
    launcher.launch(
        "candidates_int8",
        grid,
        threads,
        [head.data, head.scales, x.q, x.scales, x.sums, tokens, logits, i32(count), i32(hidden)],
    )


def _check_hidden(hidden: int) -> None:
    if hidden % TILE_UNIT or hidden == 0:
        raise ConfigurationError(f"hidden={hidden}: allowed are multiples of {TILE_UNIT}")
