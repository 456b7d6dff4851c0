"""Milliseconds of decode rounds on this machine's device: graphs, kernel by kernel, the backend's.

With early exits and with a drafter block, too.

    python -m bench.cuda_rounds [--save NAME] [--out FILE]

Weights are random, of the shape of a small Llama. Rounds start again at the same position each time, so that
all of them do the same work. Passes of steps are graphs, as they come again. Needs torch with CUDA.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from specee.cuda import choose, graph
from specee.cuda.graph import Means
from specee.cuda.record import SequencePlan
from specee.types import ModelConfig, RopeConfig

from . import cuda_task
from .cuda_blocks import block_cases
from .cuda_exits import exit_cases
from .cuda_random import backend_with, random_weights

LLAMA = ModelConfig(
    family="llama",
    vocab_size=128256,
    hidden_size=2048,
    intermediate_size=8192,
    num_layers=16,
    num_heads=32,
    num_kv_heads=8,
    head_dim=64,
    max_position=4096,
    norm_eps=1e-5,
    rope=RopeConfig(theta=500000.0),
    windows=(0,) * 16,
    tied_head=True,
)
REPEATS, WARM, TURNS = 30, 5, 8


@dataclass(frozen=True)
class Setting:
    """What is measured, and where; ``before`` is how many positions come before the rounds."""

    config: ModelConfig
    device: str
    means: Means
    before: int = 512
    repeats: int = REPEATS
    warm: int = WARM


def milliseconds(call: Callable[[], object], setting: Setting) -> dict[str, float]:
    """Of one call, which waits for the device: median and range."""
    taken = []
    for turn in range(setting.warm + setting.repeats):
        begin = time.perf_counter()
        call()
        if turn >= setting.warm:
            taken.append((time.perf_counter() - begin) * 1e3)
    return {"median": statistics.median(taken), "min": min(taken), "max": max(taken)}


def run(setting: Setting) -> dict[str, Any]:
    """Measure everything. Raises SpeceeError where rounds cannot be had."""
    import torch

    from specee.backends.cuda_round import CudaRound, ModelRound, Shape
    from specee.backends.protocol import RoundCall
    from specee.types import Sampling

    config, means = setting.config, setting.means
    weights = random_weights(config, setting.device)
    backend: Any = backend_with(weights, config, setting.device, launcher=means.launcher, means=means)
    layers = range(config.num_layers)
    found: dict[str, Any] = {}
    for sequences in (1, 4):
        own = [backend.sequence(setting.before + 16) for _ in range(sequences)]
        for one in own:
            backend.advance([(one, one.append([1] * setting.before))], config.num_layers)

        def step(own: Any = own) -> None:
            work = [(one, one.append([1])) for one in own]
            backend.advance(work, config.num_layers)
            backend.argmax(work)
            for one in own:
                one.rollback(1)

        def decode(own: Any = own) -> None:
            for one in own:
                one.append([1])
            calls = [RoundCall(one, Sampling(), (), 2 * TURNS) for one in own]
            backend.run_rounds(calls, turns=TURNS)
            for one in own:
                one.rollback(TURNS + 1)

        found[f"steps, {sequences} sequences"] = milliseconds(step, setting)
        decode()  # a round is recorded when it comes again
        each = milliseconds(decode, setting)
        name = f"backend's rounds, {sequences} sequences"
        found[name] = {which: taken / TURNS for which, taken in each.items()}
        for drafts, running in ((0, layers), (0, layers[::2]), (3, layers)):
            shape = Shape(drafts, max(1, config.num_layers // 4) if drafts else None)
            plans = [SequencePlan(1, setting.before, drafts)] * sequences
            for one_by_one in (False, True):
                parts = ModelRound(
                    *(config, backend._table, backend._layers),
                    *(own, shape, torch.device(setting.device)),
                )
                means = Means(means.launcher, means.function, means.library, one_by_one)
                round_ = CudaRound(parts, means)
                name = f"{round_.how}, {sequences} sequences, {len(running)} layers, {drafts} drafts"
                found[name] = milliseconds(lambda r=round_, w=running, p=plans: r.run(w, p), setting)
        for cases in (exit_cases, block_cases):
            for name, call in cases(backend, own):
                found[name] = milliseconds(call, setting)
    return found


def report() -> dict[str, Any]:
    """Of the model above, on this machine's device. Raises BackendUnavailableError without one."""
    launcher: Any = choose().launcher
    found = run(Setting(LLAMA, "cuda", Means(launcher, launcher.function)))
    for name, line in found.items():
        print(f"{name:<52} {line['median']:9.3f} ms")
    return {
        "what": "decode rounds, milliseconds of one",
        "graphs": graph.missing() or "conditional nodes",
        "cases": found,
    }


def main() -> int:
    """Measure, print, and save if asked to."""
    return cuda_task.finish(cuda_task.parser(__doc__).parse_args(), report)


if __name__ == "__main__":
    sys.exit(main())
