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
from collections.abc import Callable, Iterator
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from functools import partial
from typing import Any

from specee.cuda import choose, graph
from specee.cuda.graph import Means
from specee.cuda.record import SequencePlan
from specee.errors import SpeceeError
from specee.types import ModelConfig

from .cuda_blocks import block_cases
from .cuda_exits import exit_cases, no_launch
from .cuda_random import backend_with, random_weights
from .cuda_shapes import LLAMA_3_2_1B
from .cuda_task import Report, finish, parser
from .cuda_task import milliseconds as words
from .decode.contenders import device_name

REPEATS, WARM, TURNS = 30, 5, 8
Cases = Iterator[tuple[str, Callable[[], object]]]


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


def step_cases(backend: Any, own: Seq[Any]) -> Cases:
    """A token of each sequence, step by step."""

    def step() -> None:
        work = [(one, one.append([1])) for one in own]
        try:
            backend.advance(work, backend.config.num_layers)
            backend.argmax(work)
        finally:
            for one in own:
                one.rollback(1)

    yield f"steps, {len(own)} sequences", step


def round_of(backend: Any, own: Seq[Any], setting: Setting) -> dict[str, float]:
    """Milliseconds of a round of the backend, plain; raises SpeceeError where it is no launch."""
    from specee.backends.protocol import RoundCall
    from specee.types import Sampling

    def decode() -> None:
        for one in own:
            one.append([1])
        calls = [RoundCall(one, Sampling(), (), 2 * TURNS) for one in own]
        try:
            backend.run_rounds(calls, turns=TURNS)
        finally:
            for one in own:
                one.rollback(one.length - setting.before)

    decode()  # a round is recorded when it comes again
    before = backend._rounds.taken
    each = milliseconds(decode, setting)
    if backend._rounds.taken - before < TURNS * (setting.warm + setting.repeats) - 1:
        raise SpeceeError(no_launch(backend))
    return {which: taken / TURNS for which, taken in each.items()}


def recorded_cases(backend: Any, own: Seq[Any], setting: Setting) -> Cases:
    """Rounds as they are recorded, with all layers, with half of them, and with drafts; both ways."""
    import torch

    from specee.backends.cuda_round import CudaRound, ModelRound, Shape

    config, means, layers = setting.config, setting.means, range(setting.config.num_layers)
    for drafts, running in ((0, layers), (0, layers[::2]), (3, layers)):
        shape = Shape(drafts, max(1, config.num_layers // 4) if drafts else None)
        plans = [SequencePlan(1, setting.before, drafts)] * len(own)
        for one_by_one in (False, True):
            device = torch.device(setting.device)
            parts = ModelRound(config, backend._table, backend._layers, own, shape, device)
            own_means = Means(means.launcher, means.function, means.library, one_by_one)
            round_ = CudaRound(parts, own_means)
            name = f"{round_.how}, {len(own)} sequences, {len(running)} layers, {drafts} drafts"
            yield name, partial(round_.run, running, plans)


def run(setting: Setting, report: Report) -> None:
    """Measure everything. Raises SpeceeError where there can be no backend."""
    config, means = setting.config, setting.means
    weights = random_weights(config, setting.device)
    backend: Any = backend_with(weights, config, setting.device, launcher=means.launcher, means=means)
    for sequences in (1, 4):
        own = [backend.sequence(setting.before + 16) for _ in range(sequences)]
        for one in own:
            backend.advance([(one, one.append([1] * setting.before))], config.num_layers)
        name = f"backend's rounds, {sequences} sequences"
        report.measure("cases", name, partial(round_of, backend, own, setting), words)
        for what, cases in (
            ("steps", step_cases(backend, own)),
            ("recorded rounds", recorded_cases(backend, own, setting)),
            ("exits", exit_cases(backend, own)),
            ("drafts of a block", block_cases(backend, own)),
        ):
            name = f"{what}, {sequences} sequences"
            report.measure_all("cases", name, cases, partial(milliseconds, setting=setting), words)


def on_device(report: Report) -> None:
    """Of the model above, on this machine's device. Raises BackendUnavailableError without one."""
    launcher: Any = choose().launcher
    report |= {
        "what": "decode rounds, milliseconds of one",
        "device": device_name(),
        "graphs": graph.missing() or "conditional nodes",
    }
    run(Setting(LLAMA_3_2_1B, "cuda", Means(launcher, launcher.function)), report)


def main() -> int:
    """Measure, print, and save if asked to."""
    return finish(parser(__doc__).parse_args(), on_device)


if __name__ == "__main__":
    sys.exit(main())
