"""Milliseconds of decoding steps of the CUDA backend, at the shape of a real model with random weights.

    python -m bench.cuda_steps [--save NAME] [--out FILE] [--layers N]

A step is one call of ``verify``: rows through all layers and the head, from Python and back. Beside it: what
reading the weights takes at the speed of a plain copy, the least that a step can take; and chains of drafts
of a drafter block with matrices of that shape, full of zeros. Passes that come again are one launch of a
graph each, and beside that all is measured with kernels launched one by one.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator
from collections.abc import Sequence as Seq
from dataclasses import replace
from functools import partial
from typing import Any

from specee.backends.protocol import Backend, ChainCall, FittedDrafter
from specee.types import ModelConfig, Sampling

from . import cuda_task
from .cuda_blocks import blank_block
from .cuda_random import backend_with, random_weights
from .cuda_shapes import LLAMA_3_8B

ROWS = (1, 6, 64)
CONTEXTS = (128, 2048)
DRAFTS = (1, 5)
REPEATS = 10


def first_ones() -> int:
    """How many calls find out what to launch, and make a graph of it: they are not counted."""
    from specee.backends.cuda_repeats import ONE_BY_ONE

    return ONE_BY_ONE + 2


def milliseconds(backend: Backend, context: int, rows: int, repeats: int = REPEATS) -> list[float]:
    """Of steps that take ``rows`` new rows behind ``context`` positions through layers and head."""
    sequence = backend.sequence(context + rows)
    backend.advance([(sequence, sequence.append([1] * context))], backend.config.num_layers)
    found, first = [], first_ones()
    for _ in range(repeats + first):
        slots = sequence.append(range(rows))
        begin = time.perf_counter()
        backend.verify([(sequence, slots)], None)
        found.append((time.perf_counter() - begin) * 1000)
        sequence.rollback(rows)
    return found[first:]


Cases = Iterator[tuple[str, Callable[[], dict[str, float]]]]


def steps(backend: Backend, rows: Seq[int], contexts: Seq[int], repeats: int = REPEATS) -> Cases:
    """Names of cases, and what gives their median and range."""
    for context in contexts:
        for count in rows:
            name = f"{count} rows behind {context} positions"
            yield name, partial(step_of, backend, context, count, repeats)


def step_of(backend: Backend, context: int, rows: int, repeats: int) -> dict[str, float]:
    """Median and range of one case."""
    return summary(milliseconds(backend, context, rows, repeats))


def drafts(backend: Backend, lengths: Seq[int], contexts: Seq[int], repeats: int = REPEATS) -> Cases:
    """The same of chains, each of which makes the newest row of the column anew."""
    drafter, last = backend.drafter(blank_block(backend.config)), backend.config.num_layers
    for context in contexts:
        sequence = backend.sequence(context + max(lengths) + 1)
        sequence.keep([last], context)
        slots = sequence.append([1] * context)
        backend.advance([(sequence, slots[:-1])], last)
        column = drafter.column(sequence.capacity, "bf16")
        for length in lengths:
            call = ChainCall(sequence, column, length, 0.0, Sampling())
            name = f"{length} drafts behind {context} positions"
            yield name, partial(drafts_of, backend, drafter, call, repeats)


def drafts_of(backend: Backend, drafter: FittedDrafter, call: ChainCall, repeats: int) -> dict[str, float]:
    """Median and range of one case; the first chain of a column goes through the whole text."""
    times, first = [], first_ones()
    for _ in range(repeats + first):
        begin = time.perf_counter()
        backend.draft_chains(drafter, [call])
        times.append((time.perf_counter() - begin) * 1000)
    return summary(times[first:])


def summary(times: Seq[float]) -> dict[str, float]:
    """Median and range."""
    return {"median": statistics.median(times), "min": min(times), "max": max(times)}


def run(config: ModelConfig, report: cuda_task.Report) -> None:
    """Measure everything. Raises BackendUnavailableError without kernels or a device."""
    from specee.cuda import choose
    from specee.cuda.graph import Means

    chosen = choose()
    import torch

    from .cuda_kernels import copy_bandwidth

    bandwidth = copy_bandwidth()
    launcher, weights = chosen.launcher, random_weights(config, "cuda")
    backend: Any = backend_with(weights, config, "cuda", launcher=launcher)
    means = Means(launcher, launcher.function, one_by_one=True)
    one_by_one = backend_with(weights, config, "cuda", launcher=launcher, means=means)
    least = backend.weight_bytes / bandwidth / 1e6
    print(f"{'weights at the speed of a copy':<52} {least:9.3f} ms", flush=True)
    report |= {
        "what": "decoding steps of the cuda backend, milliseconds of one call of verify",
        "device": torch.cuda.get_device_name(),
        "kernels_by": chosen.how,
        "layers": config.num_layers,
        "weight_bytes": backend.weight_bytes,
        "copy_gb_per_s": bandwidth,
        "weights_ms": least,
    }
    for name, own, contexts in (("", backend, CONTEXTS), ("_one_by_one", one_by_one, CONTEXTS[:1])):
        for group, cases in (
            (f"steps_ms{name}", steps(own, ROWS, contexts)),
            (f"drafts_ms{name}", drafts(own, DRAFTS, CONTEXTS[:1])),
        ):
            report.measure_all(group, group, cases, lambda call: call(), cuda_task.milliseconds)
    report["graphs_missing"] = backend.graphs_missing


def main() -> int:
    """Measure, print, and save if asked to."""
    parser = cuda_task.parser(__doc__)
    parser.add_argument("--layers", type=int, default=LLAMA_3_8B.num_layers, help="of the model (default 32)")
    options = parser.parse_args()
    config = replace(LLAMA_3_8B, num_layers=options.layers, windows=(0,) * options.layers)
    return cuda_task.finish(options, lambda report: run(config, report))


if __name__ == "__main__":
    sys.exit(main())
