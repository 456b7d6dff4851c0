"""``specee info --costs``: where the microseconds and the bytes of a decoding step go."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass

from specee.backends.cpu import CpuBackend
from specee.backends.cpu_sequence import CpuSequence
from specee.cli import bandwidth
from specee.cli.common import load_model
from specee.cli.latency import latency_lines
from specee.engine import LatencyMeter
from specee.errors import ConfigurationError
from specee.model import Model

CONTEXT = 128
ROWS = (1, 4, 8)
_PASSES = 40
_NAMES = {
    "qkv": "q, k, v",
    "heads": "rotate and store",
    "attention": "attention",
    "o": "output product",
    "gate_up": "gate, up, SwiGLU",
    "down": "down",
    "head": "norm and head",
    "wait": "waiting at barriers",
}


@dataclass(frozen=True)
class PassCosts:
    """One pass of some rows through all layers and the head.

    ``steps`` are seconds by step, averaged over threads; ``wall`` the seconds of the calls, median;
    ``barriers`` how often the threads wait for each other.
    """

    rows: int
    steps: dict[str, float]
    wall: float
    barriers: float


def run(options: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    model = load_model(options)
    backend = model.backend
    if not isinstance(backend, CpuBackend):
        raise ConfigurationError(f"--costs needs the cpu backend; this is {backend.name!r}")
    context = min(CONTEXT, backend.config.max_position - max(ROWS))
    if context < 1:
        raise ConfigurationError(f"--costs needs a context of {max(ROWS) + 1} positions or more")
    peak = bandwidth.measure(backend.threads)
    passes = [measure(backend, rows, context) for rows in ROWS]
    around = _python_seconds(model, context)
    table = LatencyMeter(backend).table()
    for line in (
        *report(backend, passes, around, peak, context),
        "",
        *latency_lines(table, model.config.num_layers),
    ):
        print(line)
    return 0


def measure(backend: CpuBackend, rows: int, context: int) -> PassCosts:
    """Costs of verifying ``rows`` speculative rows after ``context`` positions, with the whole head."""
    backend.use_two_stages(on=False)  # else they would depend on how much has been decoded before
    sequence = backend.sequence(context + rows)
    slots = sequence.append([1] * context)
    backend.advance([(sequence, slots)], backend.config.num_layers)
    _verify(backend, sequence, rows)  # not counted
    backend.take_costs(watch=True)
    walls = [_verify(backend, sequence, rows) for _ in range(_PASSES)]
    members = backend.take_costs(watch=False)
    steps = {name: statistics.mean(member[name] for member in members) / _PASSES for name in _NAMES}
    return PassCosts(rows, steps, statistics.median(walls), members[0]["barriers"] / _PASSES)


def _verify(backend: CpuBackend, sequence: CpuSequence, rows: int) -> float:
    chain = sequence.branch([1] * rows)
    begin = time.perf_counter()
    backend.advance([(sequence, chain)], backend.config.num_layers)
    backend.argmax([(sequence, chain)])
    seconds = time.perf_counter() - begin
    sequence.prune([chain[0]])
    return seconds


def _python_seconds(model: Model, context: int) -> float:
    """Seconds a token of the generation loop that are not spent in the engine."""
    tokens = min(_PASSES, model.config.max_position - context)
    engine = model.backend
    assert isinstance(engine, CpuBackend)
    generation = model.start([1] * context, max_new_tokens=tokens, eos_token_id=[], do_sample=False)
    generation.step()  # the prompt
    engine.take_costs(watch=True)
    begin = time.perf_counter()
    for _ in generation:
        pass
    wall = time.perf_counter() - begin
    members = engine.take_costs(watch=False)
    native = statistics.mean(sum(member[name] for name in _NAMES) for member in members)
    return max(0.0, wall - native) / max(1, tokens - 1)


def report(
    backend: CpuBackend, passes: list[PassCosts], around: float, peak: float | None, context: int
) -> Iterator[str]:
    """Lines of the table."""
    sizes = backend.bytes_by_step
    columns = "".join(f"{f'{p.rows} row' + 's' * (p.rows > 1):>12}" for p in passes)
    yield f"{'microseconds':<20}{columns}{'MB':>10}{'GB/s':>8}"
    for name, title in _NAMES.items():
        times = "".join(f"{p.steps[name] * 1e6:>12.1f}" for p in passes)
        size = sizes.get(name)
        speed = f"{size / 1e6:>10.1f}{size / passes[0].steps[name] / 1e9:>8.1f}" if size else ""
        yield f"{title:<20}{times}{speed}"
    total = sum(sizes.values())
    walls = "".join(f"{p.wall * 1e6:>12.1f}" for p in passes)
    yield f"{'whole pass':<20}{walls}{total / 1e6:>10.1f}{total / passes[0].wall / 1e9:>8.1f}"
    yield f"{'times one row':<20}" + "".join(f"{p.wall / passes[0].wall:>12.2f}" for p in passes)
    yield f"{'Python, a token':<20}{around * 1e6:>12.1f}"
    barriers = passes[0].barriers
    a_layer = (barriers - 1) / backend.config.num_layers
    yield f"barriers a pass: {barriers:.0f} ({a_layer:.0f} a layer, 1 after the head)"
    yield f"context {context}, {backend.threads} threads, {backend.isa}, weights {backend.weights}"
    if peak is not None:
        share = total / passes[0].wall / 1e9 / peak
        yield f"one row reads weights at {share:.0%} of the measured {peak:.1f} GB/s"
