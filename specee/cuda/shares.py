"""How likely tokens are by their rows' logits, on the device (csrc/cuda/shares.cuh)."""

from __future__ import annotations

from specee.cuda.arrays import Array, checked
from specee.cuda.launcher import Launcher, i32

_THREADS = 256


def token_shares(launcher: Launcher, logits: Array, tokens: Array, shares: Array) -> None:
    """``shares`` (rows,) fp32: each row's token's part of the softmax of ``logits`` (rows, vocab) fp32.

    ``tokens`` (rows,) int32; one that is not of the vocabulary has NaN. Raises ConfigurationError.
    """
    rows, vocab = checked("logits", logits, "float32", (None, None))
    checked("tokens", tokens, "int32", (rows,))
    checked("shares", shares, "float32", (rows,))
    launcher.launch("token_shares", (rows, 1, 1), _THREADS, [logits, tokens, shares, i32(vocab)])
