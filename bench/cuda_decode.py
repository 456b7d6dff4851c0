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
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from specee.backends.protocol import Backend, RoundCall
from specee.types import ModelConfig, RopeConfig, Sampling, WeightFormat

from . import cuda_task
from .cuda_exits import exit_cases
from .cuda_random import backend_with, random_weights
from .cuda_steps import summary

LLAMA_2_7B = ModelConfig(
    family="llama",
    vocab_size=32000,
    hidden_size=4096,
    intermediate_size=11008,
    num_layers=32,
    num_heads=32,
    num_kv_heads=32,
    head_dim=128,
    max_position=4096,
    norm_eps=1e-5,
    rope=RopeConfig(theta=10000.0),
    windows=(0,) * 32,
    tied_head=False,
)
LLAMA_3_2_1B = replace(
    LLAMA_2_7B,
    vocab_size=128256,
    hidden_size=2048,
    intermediate_size=8192,
    num_layers=16,
    num_kv_heads=8,
    head_dim=64,
    rope=RopeConfig(theta=500000.0),
    windows=(0,) * 16,
    tied_head=True,
)
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


def decoded(backend: Backend, context: int, repeats: int = REPEATS) -> list[float]:
    """Milliseconds of a token of plain decoding behind ``context`` positions."""
    sequence, greedy = backend.sequence(context + 1 + TURNS), Sampling()
    backend.advance([(sequence, sequence.append([1] * context))], backend.config.num_layers)

    def turns() -> None:
        sequence.append([1])
        backend.run_rounds([RoundCall(sequence, greedy, (), 2 * TURNS)], turns=TURNS)
        sequence.rollback(TURNS + 1)

    return [taken / TURNS for taken in milliseconds(turns, repeats)]


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


def measured(case: Case, device: str, bandwidth: float, repeats: int = REPEATS, **arguments: Any) -> Any:
    """One line of the result; ``bandwidth`` in GB/s."""
    config = case.config
    weights = random_weights(config, device, case.weights)
    backend: Any = backend_with(weights, config, device, case.weights, **arguments)
    times, size = decoded(backend, CONTEXT, repeats), bytes_read(backend, CONTEXT)
    median = statistics.median(times)
    found: dict[str, Any] = {
        "token_ms": summary(times),
        "tokens_per_s": 1e3 / median,
        "bytes": size,
        "of_copy": size / median / 1e6 / bandwidth,
        "graphs_missing": backend.graphs_missing,
    }
    if case.exits:
        found["exits"] = left(backend, CONTEXT, repeats)
    return found


def run() -> dict[str, Any]:
    """Measure everything. Raises BackendUnavailableError without kernels or a device."""
    from specee.cuda import choose

    chosen = choose()
    import torch

    from .cuda_kernels import copy_bandwidth

    found, bandwidth = {}, copy_bandwidth()
    for case in CASES:
        found[case.name] = one = measured(case, "cuda", bandwidth, launcher=chosen.launcher)
        print(
            f"{case.name:<20} {one['tokens_per_s']:8.1f} tokens/s, {one['of_copy']:.1%} of a copy", flush=True
        )
        if case.exits:
            print(f"{'':<20} exits at most {one['exits']['off_line']:.1%} off a line", flush=True)
        torch.cuda.empty_cache()
    return {
        "what": "plain decoding of the cuda backend, one launch a token, random weights",
        "device": torch.cuda.get_device_name(),
        "kernels_by": chosen.how,
        "context": CONTEXT,
        "copy_gb_per_s": bandwidth,
        "cases": found,
    }


def main() -> int:
    """Measure, print, and save if asked to."""
    return cuda_task.finish(cuda_task.parser(__doc__).parse_args(), run)


if __name__ == "__main__":
    sys.exit(main())
