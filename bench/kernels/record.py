"""What a case leaves in the JSON file beside pytest-benchmark's own statistics."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .roofline import Machine, shares
from .turns import Times

# torch rounds inputs, weights and results to 8 bits, each by 0.4 % at most, and we some inputs, by 0.4 % of
# the largest of 32.
_SAME = 0.05


def check_same(theirs: npt.NDArray[np.float32], expected: npt.NDArray[np.float64]) -> None:
    """That torch is timed at the very operation: its result agrees, as a whole, to within its precision."""
    off = np.linalg.norm(theirs - expected) / np.linalg.norm(expected)
    assert off < _SAME, f"torch computes something else: it is off by {off:.1%}"


def record(
    benchmark: Any,
    machine: Machine,
    times: Times | None,
    *,
    op: str,
    model: str,
    stored: str,
    rows: int,
    moved: int,
    multiply_adds: int,
    bound: str | None,
    **more: Any,
) -> None:
    """Fill ``extra_info``; ``bound`` is a format for :func:`.roofline.shares`, ``more`` special to the op."""
    benchmark.group = f"{model} {op}"
    if times is None:
        return
    summary = times.summary()
    benchmark.extra_info |= {
        "op": op,
        "model": model,
        "format": stored,
        "rows": rows,
        "threads": machine.threads,
        "isa": machine.isa,
        **more,
        **summary,
        **shares(machine, summary["seconds"]["median"], moved, multiply_adds, bound),
    }
