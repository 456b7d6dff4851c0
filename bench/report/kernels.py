"""Records of kernel benchmarks: points under a roofline, and their sums over a layer."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

ATTENTION = "attention"


@dataclass(frozen=True)
class KernelPoint:
    """One operation at one shape and number of rows, and what bounds it on this machine.

    ``bandwidth`` in GB/s and ``arithmetic`` in 10^9 multiply-adds/s are None where neither bounds it.
    """

    op: str
    model: str
    format: str
    rows: int
    shape: tuple[int, ...]
    context: int | None
    seconds: float
    torch_seconds: float | None
    bytes: float
    multiply_adds: float
    bandwidth: float | None
    arithmetic: float | None
    share: float | None

    @property
    def intensity(self) -> float:
        """Multiply-adds a byte."""
        return self.multiply_adds / self.bytes

    @property
    def rate(self) -> float:
        """10^9 multiply-adds a second."""
        return self.multiply_adds / self.seconds / 1e9

    @property
    def gb_s(self) -> float:
        """Memory traffic a second."""
        return self.bytes / self.seconds / 1e9

    @property
    def speedup(self) -> float | None:
        """Times faster than torch."""
        return self.torch_seconds / self.seconds if self.torch_seconds else None

    @property
    def roof(self) -> str:
        """Whose arithmetic bounds it: attention computes in one way whatever the cache holds."""
        return ATTENTION if self.op == ATTENTION else self.format


def points(result: dict[str, Any]) -> list[KernelPoint]:
    """Every benchmark of a recorded run."""
    return [
        KernelPoint(
            op=found["op"],
            model=found["model"],
            format=found["format"],
            rows=found["rows"],
            shape=tuple(found["shape"]),
            context=found.get("context"),
            seconds=found["seconds"]["median"],
            torch_seconds=found["torch_seconds"]["median"] if "torch_seconds" in found else None,
            bytes=found["bytes"],
            multiply_adds=found["multiply_adds"],
            bandwidth=found.get("bandwidth_gb_s"),
            arithmetic=found.get("arithmetic_gmadd_s"),
            share=found.get("share_of_bound"),
        )
        for found in result["kernels"]
    ]


def bounded(found: Iterable[KernelPoint]) -> list[KernelPoint]:
    """Those that memory or arithmetic bounds: the ones to draw."""
    return [point for point in found if point.bandwidth and point.arithmetic]


def roofs(found: Sequence[KernelPoint]) -> tuple[float, dict[str, float]]:
    """Bandwidth, and the arithmetic roof of each format."""
    tops: dict[str, float] = {}
    for point in found:
        if point.arithmetic:
            tops[point.roof] = max(point.arithmetic, tops.get(point.roof, 0.0))
    return statistics.median(point.bandwidth for point in found if point.bandwidth), tops


@dataclass(frozen=True)
class Sum:
    """All matrix products of a layer and the head, one after the other, in one format."""

    model: str
    format: str
    seconds: dict[int, float]  # by rows
    bytes: float
    share: float
    speedup: float | None


def sums(found: Sequence[KernelPoint]) -> list[Sum]:
    """One for each model and format; figures but ``seconds`` are those of the fewest rows."""
    products = [point for point in found if point.op in _PRODUCTS]
    groups: dict[tuple[str, str], list[KernelPoint]] = {}
    for point in products:
        groups.setdefault((point.model, point.format), []).append(point)
    return [_sum(model, stored, group) for (model, stored), group in groups.items()]


_PRODUCTS = ("qkv", "o", "gate_up", "down", "head")


def _sum(model: str, stored: str, group: list[KernelPoint]) -> Sum:
    seconds: dict[int, float] = {}
    for point in group:
        seconds[point.rows] = seconds.get(point.rows, 0.0) + point.seconds
    least = [point for point in group if point.rows == min(seconds)]
    total = sum(point.seconds for point in least)
    torch = [point.torch_seconds for point in least]
    return Sum(
        model,
        stored,
        dict(sorted(seconds.items())),
        sum(point.bytes for point in least),
        sum((point.share or 0.0) * point.seconds for point in least) / total,
        sum(t for t in torch if t) / total if all(torch) else None,
    )
