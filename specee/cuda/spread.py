"""Logits of some tokens among those of all, on the device (csrc/cuda/spread.cuh)."""

from __future__ import annotations

from specee.cuda.arrays import Array, checked
from specee.cuda.launcher import Launcher, i32
from specee.cuda.tiles import ceil_div

_THREADS = 256


def spread_logits(launcher: Launcher, kept: Array, places: Array, out: Array) -> None:
    """``out`` (rows, vocab) fp32: of each token the logit in ``kept`` (rows, count) fp32, or minus infinity.

    ``places`` (vocab,) int32: where each token's is, below 0 for nowhere. Raises ConfigurationError.
    """
    rows, count = checked("kept", kept, "float32", (None, None))
    (vocab,) = checked("places", places, "int32", (None,))
    checked("out", out, "float32", (rows, vocab))
    grid = (ceil_div(vocab, _THREADS), rows, 1)
    launcher.launch("spread_logits", grid, _THREADS, [kept, places, out, i32(count), i32(vocab)])
