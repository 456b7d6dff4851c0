"""What the machine can do, and the share of it that an operation reached.

Two bounds: bytes at the bandwidth of a read-only sweep over 512 MB, and multiply-adds at the rate of a
product of the same format whose weights stay in the cache, 64 rows at a time. The latter is a bound in
practice, not in theory: the best that this very kernel does when memory costs nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from specee import _cpu, env

from ..sweep import bandwidth
from .blocks import random_rows

_K = 512
_OUTPUTS_OF_A_THREAD = 256  # half a megabyte of fp32 weights: fits a core's own cache
_ROWS = 64
_CALLS = 40


def last_level_cache() -> int:
    """Bytes of the last-level cache; 32 MB where the system does not say."""
    sizes = []
    for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        text = path.read_text().strip()
        if text.endswith("K"):
            sizes.append(int(text[:-1]) << 10)
    return max(sizes, default=32 << 20)


def copies(size: int) -> int:
    """Copies of something of ``size`` bytes that are twice the last-level cache together, so that going round
    them reads memory."""
    return max(1, -(-2 * last_level_cache() // size))


def from_memory(make: Callable[[int], Any]) -> Any:
    """An operation, ``make(copies)``, with as many copies as its size asks for."""
    single = make(1)
    count = copies(single.bytes)
    return single if count == 1 else make(count)


class Machine:
    """Bounds of the threads in use, each measured once, when it is first needed."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.isa = _cpu.select_isa(env.force_isa())
        self._multiply_adds = cache(self._measure_multiply_adds)

    def bandwidth(self) -> float:
        """Bytes a second."""
        return _bandwidth(self.threads) * 1e9

    def multiply_adds(self, stored: str) -> float:
        """Multiply-adds a second of products with weights in that format."""
        return self._multiply_adds(stored)

    def _measure_multiply_adds(self, stored: str) -> float:
        outputs = _OUTPUTS_OF_A_THREAD * self.threads
        op = _cpu.ops.Linear(outputs, _K, stored, self.isa, self.threads)
        rng = np.random.default_rng(0)
        op.set_rows(0, random_rows(rng, outputs, _K, stored, 0.05), stored)
        x = rng.standard_normal((_ROWS, _K), dtype=np.float32)
        y = np.empty((_ROWS, outputs), dtype=np.float32)
        best = float("inf")
        for _ in range(_CALLS):
            begin = time.perf_counter()
            op.run(x, y)
            best = min(best, time.perf_counter() - begin)
        return _ROWS * _K * outputs / best


_bandwidth = cache(bandwidth)


def shares(
    machine: Machine, seconds: float, moved: int, multiply_adds: int, stored: str | None
) -> dict[str, Any]:
    """Rates of an operation, and their shares of the bounds.

    ``stored`` names the format whose arithmetic bounds it; None for an operation whose data stay in the
    cache, which has no bound here.
    """
    found: dict[str, Any] = {
        "bytes": moved,
        "multiply_adds": multiply_adds,
        "gb_s": moved / seconds / 1e9,
        "gmadd_s": multiply_adds / seconds / 1e9,
    }
    if stored is None:
        return found
    by_bytes = moved / machine.bandwidth()
    by_arithmetic = multiply_adds / machine.multiply_adds(stored)
    return found | {
        "bandwidth_gb_s": machine.bandwidth() / 1e9,
        "arithmetic_gmadd_s": machine.multiply_adds(stored) / 1e9,
        "share_of_bandwidth": by_bytes / seconds,
        "share_of_arithmetic": by_arithmetic / seconds,
        "share_of_bound": max(by_bytes, by_arithmetic) / seconds,
    }
