"""Microseconds and bandwidth of the CUDA kernels on this machine's device, beside torch and a plain copy.

    python -m bench.cuda_kernels [--save NAME] [--out FILE]

Calls are recorded into a CUDA graph, so that what is measured is the device and not Python.
Needs torch with CUDA.
"""

from __future__ import annotations

import statistics
import sys
from functools import partial
from typing import Any

import numpy as np

from specee import cuda

from . import cuda_task
from .cuda_cases import Call, Case, Shapes, cases

REPEATS = 20
COPIED = 1 << 29  # bytes of the copy that bandwidth is compared with


def microseconds(calls: list[Call]) -> list[float]:
    """Time of one call, in each of ``REPEATS`` replays of a graph of all of them."""
    import torch

    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for call in calls:
            call()
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for call in calls:
            call()
    graph.replay()
    found = []
    for _ in range(REPEATS):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        found.append(begin.elapsed_time(end) * 1000 / len(calls))
    return found


def copy_bandwidth() -> float:
    """GB/s of a plain copy, reads and writes counted."""
    import torch

    source = torch.empty(COPIED, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    copies = [lambda: target.copy_(source)] * 8  # or the launch of the graph would count
    return 2 * COPIED / statistics.median(microseconds(copies)) / 1000


def summary(values: list[float]) -> dict[str, float]:
    """Median and range."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def measured(case: Case, bandwidth: float) -> dict[str, Any]:
    """One line of the result."""
    times = microseconds(case.calls)
    speed = case.bytes_read / statistics.median(times) / 1000
    result: dict[str, Any] = {
        "us": summary(times),
        "gb_per_s": speed,
        "of_copy": speed / bandwidth,
    }
    if case.torch:
        theirs = microseconds(case.torch)
        result |= {"torch_us": summary(theirs)}
        result |= {"times_torch": statistics.median(theirs) / statistics.median(times)}
    return result


def put(array: np.ndarray) -> Any:
    """A torch tensor on the device."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(array)).cuda()


def words(found: dict[str, Any]) -> str:
    """Of one line of the result."""
    beside = f", {found['times_torch']:.1f}x torch" if "times_torch" in found else ""
    return f"{found['us']['median']:9.2f} us {found['gb_per_s']:8.0f} GB/s{beside}"


def run(report: cuda_task.Report) -> None:
    """Measure everything. Raises BackendUnavailableError without kernels or a device."""
    chosen = cuda.choose()
    import torch

    bandwidth = copy_bandwidth()
    report |= {
        "what": "CUDA kernels, microseconds of one call in a CUDA graph",
        "device": torch.cuda.get_device_name(),
        "kernels_by": chosen.how,
        "copy_gb_per_s": bandwidth,
    }
    for case in cases(chosen.launcher, put, Shapes()):
        report.measure("cases", case.name, partial(measured, case, bandwidth), words)


def main() -> int:
    """Measure, print, and save if asked to."""
    return cuda_task.finish(cuda_task.parser(__doc__).parse_args(), run)


if __name__ == "__main__":
    sys.exit(main())
