"""What exit predictors came to."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ExitReport:
    """Of positions held out, every layer checked at the threshold 0.5.

    ``exit_rate``: the share that leaves before the last layer, ``layer`` where on average, the last one
    counted for those that do not; ``agreement``: of those that leave, how often with the final token.
    """

    samples: int
    exit_rate: float
    layer: float
    agreement: float
