"""One measurement: check, take turns with torch, record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from ...spread import ratio, spread
from .gpu import Gpu, calls_for, capture, replay

# Inputs or weights rounded to 8 bits on the way, as torch rounds them too; ours otherwise keeps fp32.
ROUNDED, EXACT = 2.0**-6, 2.0**-12

Tensor = torch.Tensor
Call = Callable[[int], Any]


@dataclass(frozen=True)
class Case:
    """``ours(i)`` and ``theirs(i)`` compute the same from the i-th copy of the weights.

    ``expected`` is the result of copy 0 by the reference; ``picked`` takes it out of what ``ours`` returns.
    ``moved`` bytes is what one call must read and write at the least.
    """

    op: str
    model: str
    stored: str
    rows: int
    ours: Call
    theirs: Call | None
    expected: Tensor
    moved: int
    copies: int = 1
    within: float = EXACT
    picked: Callable[[Any], Tensor] = lambda result: result


def off(result: Tensor, expected: Tensor) -> float:
    """Relative difference as a whole; every element counts, so that a NaN does too."""
    return float((result.double() - expected).norm() / expected.norm())


def measure(benchmark: Any, gpu: Gpu, case: Case, turns: int) -> None:
    """Fill ``extra_info``; fails where ours is not the operation, or torch's is another."""
    wrong = off(case.picked(case.ours(0)), case.expected)
    assert wrong <= case.within, f"{case.op}: off by {wrong:.2e}, allowed is {case.within:.2e}"
    if case.theirs is not None:
        wrong = off(case.theirs(0), case.expected)
        assert wrong <= 4 * ROUNDED, f"torch computes something else: off by {wrong:.2e}"
    calls = calls_for(case.copies)
    mine = capture(lambda i: case.ours(i % case.copies), calls)
    torchs = None
    if case.theirs is not None:
        theirs = case.theirs
        torchs = capture(lambda i: theirs(i % case.copies), calls)
    seconds: list[float] = []
    others: list[float] = []
    for _ in range(turns):
        seconds.append(replay(mine, calls))
        if torchs is not None:
            others.append(replay(torchs, calls))

    def once() -> None:
        mine.replay()
        torch.cuda.synchronize()

    benchmark.pedantic(once, rounds=3, iterations=1)
    benchmark.group = f"{case.model} {case.op}"
    found = spread(seconds)
    rate = case.moved / found["median"]
    benchmark.extra_info |= {
        "op": case.op,
        "model": case.model,
        "format": case.stored,
        "rows": case.rows,
        "device": gpu.name,
        "seconds": found,
        "bytes": case.moved,
        "gb_s": rate / 1e9,
        "copy_gb_s": gpu.bandwidth / 1e9,
        "share_of_copy_bandwidth": rate / gpu.bandwidth,
    }
    if others:
        benchmark.extra_info |= {"torch_seconds": spread(others), "speedup": ratio(others, seconds)}
