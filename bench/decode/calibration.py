"""Whether a certified bound holds: the calibration of a speculator file, split at random many times.

    python -m bench.decode.calibration [--speculator FILE] [--bound 0.1]... [--splits 200]

Half of the generations choose a threshold for each bound (``specee/policies/risk.py``); the other half says
what is lost with it. A split fails if that is over the bound. One in twenty may, and what chance adds:
the margin is that of a binomial count at 95 %. Halves are small, so fewer bounds are certified than by all.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from specee.errors import ConfigurationError
from specee.models import packaged
from specee.models.checkpoint import open_checkpoint
from specee.models.exit_parts import Calibration
from specee.models.speculator import fingerprint, read_speculator
from specee.policies.risk import DELTA, certified

from .. import options as common

BOUNDS = (0.1, 0.05, 0.02)
_SEED = 1


def measure(
    model: str | None, speculator: Path | None, bounds: tuple[float, ...] = BOUNDS, splits: int = 200
) -> dict[str, Any]:
    """Raises ConfigurationError for a file without a calibration."""
    checkpoint = open_checkpoint(model)
    path = packaged.packaged_file(checkpoint) if speculator is None else speculator
    mark = fingerprint(checkpoint.config, checkpoint.norms())
    found = None if path is None else read_speculator(path, checkpoint.config, mark).calibration
    if found is None:
        raise ConfigurationError(f"{path or checkpoint.source} has no calibration: name a file of specee fit")
    return {
        "what": "a calibration split in halves: one chooses a threshold, the other says what is lost",
        "model": Path(checkpoint.source).name,
        "generations": found.losses.shape[1],
        "weights": found.weights,
        "splits": splits,
        "margin": DELTA + 1.645 * math.sqrt(DELTA * (1 - DELTA) / splits),
        "thresholds": {
            f"{t:g}": float(losses.mean()) for t, losses in zip(found.thresholds, found.losses, strict=True)
        },
        "bounds": {f"{bound:g}": _bound(found, bound, splits) for bound in bounds},
    }


def _bound(calibration: Calibration, bound: float, splits: int) -> dict[str, Any]:
    thresholds, losses = calibration.thresholds.tolist(), calibration.losses.astype(np.float64)
    rng = np.random.default_rng(_SEED)
    count = losses.shape[1]
    whole = certified(thresholds, losses.mean(1).tolist(), count, bound)
    failed, lost, chosen = 0, [], 0
    for _ in range(splits):
        order = rng.permutation(count)
        mine, others = order[: count // 2], order[count // 2 :]
        threshold = certified(thresholds, losses[:, mine].mean(1).tolist(), len(mine), bound)
        if threshold is None:
            continue
        chosen += 1
        lost.append(float(losses[thresholds.index(threshold), others].mean()))
        failed += lost[-1] > bound
    return {
        "threshold": whole,
        "certified": chosen / splits,
        "failed": failed / splits,
        "mean_loss": float(np.mean(lost)) if lost else None,
    }


def main() -> None:
    """Run and save."""
    parser = common.parser(__doc__)
    parser.add_argument("--speculator", type=Path, help="default: the package's")
    parser.add_argument(
        "--bound", type=float, action="append", help="may be given again; default: 0.1 0.05 0.02"
    )
    parser.add_argument("--splits", type=int, default=200)
    options = common.parse(parser)
    bounds = tuple(options.bound or BOUNDS)
    common.finish(options, "calibration", measure(options.model, options.speculator, bounds, options.splits))


if __name__ == "__main__":
    main()
