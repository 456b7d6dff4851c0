"""Decoding of the CUDA backend at the shapes of real models, beside the bandwidth of this machine's device.

    python -m bench.cuda_decode [--save NAME] [--out FILE]

Weights are random. A token reads all weights and the keys and values before it: ``of_copy`` is how fast that
is, as a share of a plain copy in the same run. Exits are scripted (:mod:`bench.cuda_exits`): each should take
what is fixed and as many layers as it has, and ``off_line`` is how far the worst is from the best straight
line. Needs torch with CUDA, and 14 GB of its memory.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from collections.abc import Sequence as Seq
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from specee.backends.protocol import Backend, RoundCall
from specee.errors import SpeceeError
from specee.types import ModelConfig, Sampling, WeightFormat

from .cuda_exits import exit_cases, no_launch
from .cuda_random import backend_with, random_weights
from .cuda_shapes import LLAMA_2_7B, LLAMA_3_2_1B
from .cuda_steps import summary
from .cuda_task import Report, finish, parser

CONTEXT, TURNS, REPEATS = 128, 8, 12


class Case(NamedTuple):
    """A model's shape, and how its weights are stored; with ``exits`` the scripted ones, too."""

    name: str
    config: ModelConfig
    weights: WeightFormat
    exits: bool = False


CASES = (
    Case("Llama-2-7B, bf16", LLAMA_2_7B, "bf16", exits=True),
    Case("Llama-2-7B, int4", LLAMA_2_7B, "int4"),
    Case("Llama-3.2-1B, bf16", LLAMA_3_2_1B, "bf16"),
)


def milliseconds(call: Callable[[], object], repeats: int) -> list[float]:
    """Of one call, which waits for the device; the first ones record launches, and are not counted."""
    found = []
    for _ in range(3 + repeats):
        begin = time.perf_counter()
        call()
        found.append((time.perf_counter() - begin) * 1e3)
    return found[3:]


def decoded(backend: Any, context: int, repeats: int = REPEATS) -> list[float]:
    """Milliseconds of a token of plain decoding behind ``context`` positions, a launch each.

    Raises SpeceeError where it takes more.
    """
    sequence, greedy = backend.sequence(context + 1 + TURNS), Sampling()
    backend.advance([(sequence, sequence.append([1] * context))], backend.config.num_layers)

    def turns() -> int:
        before: int = backend._rounds.taken
        sequence.append([1])
        backend.run_rounds([RoundCall(sequence, greedy, (), 2 * TURNS)], turns=TURNS)
        sequence.rollback(TURNS + 1)
        return int(backend._rounds.taken) - before

    found = [taken / TURNS for taken in milliseconds(turns, repeats)]
    if turns() != TURNS:
        raise SpeceeError(no_launch(backend))
    return found


def bytes_read(backend: Any, context: int) -> int:
    """By a token: weights, and keys and values of two bytes a number."""
    config = backend.config
    cache = 4 * config.num_layers * config.kv_dim * (context + TURNS // 2)
    return int(backend.weight_bytes + cache)


def left(backend: Backend, context: int, repeats: int = REPEATS) -> dict[str, Any]:
    """Milliseconds of scripted exits by the layers that they have, and how far they are from a line."""
    sequence = backend.sequence(context + 16)
    backend.advance([(sequence, sequence.append([1] * context))], backend.config.num_layers)
    times: dict[int, list[float]] = {}
    for name, call in exit_cases(backend, [sequence]):
        if "launch" in name:
            times[int(name.split()[2])] = milliseconds(call, repeats)
    found: dict[str, Any] = {f"{layers} layers": summary(taken) for layers, taken in times.items()}
    return found | line_of(list(times), [statistics.median(taken) for taken in times.values()])


def line_of(layers: Seq[int], medians: Seq[float]) -> dict[str, float]:
    """``fixed_ms`` and ``layer_ms`` of the best line, and how far the worst of these is off, as a share."""
    slope, fixed = np.polyfit(layers, medians, 1)
    expected = fixed + slope * np.array(layers)
    off = np.abs(np.array(medians) / expected - 1)
    return {"fixed_ms": float(fixed), "layer_ms": float(slope), "off_line": float(off.max())}


def token(backend: Any, bandwidth: float, repeats: int = REPEATS) -> dict[str, Any]:
    """What a token takes; ``bandwidth`` in GB/s."""
    times, size = decoded(backend, CONTEXT, repeats), bytes_read(backend, CONTEXT)
    median = statistics.median(times)
    return {
        "token_ms": summary(times),
        "tokens_per_s": 1e3 / median,
        "bytes": size,
        "of_copy": size / median / 1e6 / bandwidth,
    }


def measure(report: Report, case: Case, device: str, repeats: int = REPEATS, **arguments: Any) -> None:
    """Lines of the result for one shape."""
    bandwidth = report["copy_gb_per_s"]
    weights = random_weights(case.config, device, case.weights)
    backend = backend_with(weights, case.config, device, case.weights, **arguments)
    report.measure(
        *("cases", case.name, lambda: token(backend, bandwidth, repeats)),
        lambda found: f"{found['tokens_per_s']:9.1f} tokens/s, {found['of_copy']:.1%} of a copy",
    )
    if case.exits:
        report.measure(
            *("exits", case.name, lambda: left(backend, CONTEXT, repeats)),
            lambda found: f"exits at most {found['off_line']:.1%} off a line",
        )


def run(report: Report) -> None:
    """Measure everything. Raises BackendUnavailableError without kernels or a device."""
    from specee.cuda import choose

    chosen = choose()
    import torch

    from .cuda_kernels import copy_bandwidth

    report |= {
        "what": "plain decoding of the cuda backend, one launch a token, random weights",
        "device": torch.cuda.get_device_name(),
        "kernels_by": chosen.how,
        "context": CONTEXT,
        "copy_gb_per_s": copy_bandwidth(),
    }
    for case in CASES:
        measured = partial(measure, report, case, "cuda", launcher=chosen.launcher)
        report.attempt("cases", case.name, measured)
        torch.cuda.empty_cache()


def main() -> int:
    """Measure, print, and save if asked to."""
    return finish(parser(__doc__).parse_args(), run)


if __name__ == "__main__":
    sys.exit(main())
