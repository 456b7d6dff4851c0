"""The GPU: whether there is one, what its memory can do, and seconds of calls on it."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import cached_property

import torch

_COPIED = 1 << 30
_CALLS = 24  # in one graph


def why_not() -> str | None:
    """Why nothing can be measured; None if it can."""
    if importlib.util.find_spec("triton") is None:
        return 'needs triton: pip install "specee[triton]"'
    if not torch.cuda.is_available():
        return "needs an NVIDIA GPU that torch can use, and there is none"
    return None


class Gpu:
    """The current device."""

    @property
    def name(self) -> str:
        return torch.cuda.get_device_name()

    def copies(self, size: int) -> int:
        """Copies of something of ``size`` bytes that are twice the L2 cache together."""
        return max(1, -(-2 * torch.cuda.get_device_properties().L2_cache_size // size))

    @cached_property
    def bandwidth(self) -> float:
        """Bytes a second read and written by a copy of a gigabyte."""
        source = torch.empty(_COPIED, dtype=torch.uint8, device="cuda")
        target = torch.empty_like(source)
        best = min(replay(capture(lambda _: target.copy_(source), 4), 4) for _ in range(5))
        return 2 * _COPIED / best


def capture(call: Callable[[int], object], calls: int) -> torch.cuda.CUDAGraph:
    """``call(0)``, ``call(1)``, ... as one graph; compiled and warm before it is captured."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for index in range(3):
            call(index)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for index in range(calls):
            call(index)
    return graph


def replay(graph: torch.cuda.CUDAGraph, calls: int) -> float:
    """Seconds a call, by the device's clock."""
    graph.replay()
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    graph.replay()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1e3 / calls


def calls_for(copies: int) -> int:
    """Calls of a graph: whole rounds of the copies."""
    return copies * max(1, _CALLS // copies)
