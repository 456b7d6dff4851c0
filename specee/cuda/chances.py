"""What an exit predictor says of rows by logits of their candidates (csrc/cuda/exit_chances.cuh)."""

from __future__ import annotations

from specee.cuda.arrays import Array, checked
from specee.cuda.launcher import Launcher, i32
from specee.cuda.scoring import Mlp
from specee.cuda.tiles import SCORE_CANDIDATES, SCORE_THREADS
from specee.errors import ConfigurationError


def exit_chances(
    launcher: Launcher,
    mlp: Mlp,
    logits: Array,
    probabilities: Array,
    chances: Array,
    *,
    asked: Array | None = None,
) -> None:
    """``chances`` (rows,) fp32 that each row's token is the final one (SpecEE, arXiv 2504.08850, T1).

    ``logits`` and ``probabilities`` (rows, k) fp32, k 1 to 16; the latter are those of the layer checked
    before, zeros at the first, and become those of this one. ``asked`` (rows,) int32: rows where it is 0 are
    left as they are. A row with a logit that is not finite has NaN. Raises ConfigurationError.
    """
    rows, count = checked("logits", logits, "float32", (None, None))
    if not 1 <= count <= SCORE_CANDIDATES:
        raise ConfigurationError(f"{count} candidates a row: allowed are 1..{SCORE_CANDIDATES}")
    checked("probabilities", probabilities, "float32", (rows, count))
    checked("chances", chances, "float32", (rows,))
    if asked is not None:
        checked("asked", asked, "int32", (rows,))
    units = mlp.units(3 * count)
    weights = [mlp.up, mlp.up_bias, mlp.down, mlp.down_bias]
    arguments = [logits, asked, *weights, probabilities, chances, i32(count), i32(units)]
    launcher.launch("exit_chances", (rows, 1, 1), SCORE_THREADS, arguments)
