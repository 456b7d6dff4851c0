"""Time a few passes, to know how long layers and the head take for how many rows."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from collections.abc import Sequence as Seq

from specee.backends.protocol import Backend
from specee.models.table import shapes
from specee.policies.latency import Latency, interpolated
from specee.types import ModelConfig, WeightFormat

ROWS = (1, 2, 4, 8, 16)
STEP_SECONDS = 1e-4
"""What the loop itself takes in a step, until steps have been seen."""

_CONTEXT = 32
_TURNS = 15
# The context and one turn of all row counts take about as long as this many passes of one row.
_PASSES = 12
# Layers with this many bytes of weights push each other out of the caches, as those of a whole pass do.
_COLD_BYTES = 64 << 20
_WEIGHT_BYTES: dict[WeightFormat, float] = {"fp32": 4.0, "bf16": 2.0, "int8": 1.0}
_LEAST_WEIGHT_BYTES = 0.5


def measure(backend: Backend, clock: Callable[[], float], budget: float) -> Latency:
    """Measure for ``budget`` seconds; at the least one pass of 1 row and one of the most."""
    until = clock() + budget
    config = backend.config
    rows = [count for count in ROWS if count < config.max_position]
    most = max(rows, default=0)
    scratch = _Scratch(backend, clock, max(1, min(_CONTEXT, config.max_position - most)), most)
    layers, head = scratch.first()
    if not rows:  # no room for a second position
        return Latency((1,), (layers / config.num_layers,), (head,), scratch.call, STEP_SECONDS)
    cold = _cold_layers(config, backend.weights)
    depth = scratch.prepare((budget / _PASSES - head) / max(layers / config.num_layers, 1e-9), cold)
    taken: dict[int, list[tuple[float, float]]] = {}
    for turn in range(_TURNS):  # in turns, so that a disturbance hits all row counts alike
        order = rows if turn else sorted(rows, key=lambda count: (count not in (1, most), count))
        for count in order:
            known = taken.get(count) or taken.get(most)
            if known and not (turn == 0 and count in (1, most)) and clock() + min(map(sum, known)) > until:
                return _table(rows, taken, depth, scratch.call)
            taken.setdefault(count, []).append(scratch.run(count))
    return _table(rows, taken, depth, scratch.call)


def plausible(rows: Seq[int], values: Seq[float]) -> tuple[float, ...]:
    """Never less for more rows, and never more than the rows would take in smaller passes.

    Of values that say otherwise the larger one is wrong: noise only adds time.
    """
    made = list(values)
    for i in reversed(range(len(made) - 1)):
        made[i] = min(made[i], made[i + 1])
    for i in range(1, len(made)):
        made[i] = min(made[i], made[i - 1] * rows[i] / rows[i - 1])
    return tuple(made)


class _Scratch:
    """A sequence of its own, gone after the measurement; its tokens mean nothing."""

    def __init__(self, backend: Backend, clock: Callable[[], float], context: int, most: int) -> None:
        self._backend, self._clock, self._context = backend, clock, context
        self._sequence = backend.sequence(context + most)
        self._layers = self._depth = backend.config.num_layers
        self._calls: list[float] = []

    @property
    def call(self) -> float:
        """Seconds that a call took beside the work in it."""
        return statistics.median(self._calls)

    def first(self) -> tuple[float, float]:
        """Seconds of all layers and the head for the first position: a rough idea, as all is cold."""
        return self._verify(list(self._sequence.append([0])))

    def prepare(self, affordable: float, cold: int) -> int:
        """Choose how many layers passes have, add the context, and return them."""
        self._depth = min(self._layers, max(cold, int(affordable)))
        if self._context > 1:
            slots = list(self._sequence.append([0] * (self._context - 1)))
            self._backend.advance([(self._sequence, slots)], self._depth)
        return self._depth

    def run(self, count: int) -> tuple[float, float]:
        """Seconds of the layers and of the head for one pass of ``count`` rows, which are dropped again."""
        slots = self._sequence.branch([0] * count)
        try:
            return self._verify(slots) if self._depth == self._layers else self._advance(slots)
        finally:
            self._sequence.prune(slots[:1])

    def _verify(self, slots: Seq[int]) -> tuple[float, float]:
        begin = self._clock()
        _, layers, head = self._backend.verify([(self._sequence, slots)], None)
        self._calls.append(max(0.0, self._clock() - begin - layers - head))
        return layers, head

    def _advance(self, slots: Seq[int]) -> tuple[float, float]:
        """Some of the layers only; ``verify`` has no such thing."""
        work = [(self._sequence, slots)]
        begin = self._clock()
        self._backend.advance(work, self._depth)
        middle = self._clock()
        self._backend.argmax(work)
        end = self._clock()
        return max(0.0, middle - begin - self.call), max(0.0, end - middle - self.call)


def _cold_layers(config: ModelConfig, weights: WeightFormat) -> int:
    """How many layers have too many bytes for any cache; formats of several widths count as the narrowest."""
    numbers = 0
    for (_, layer), shape in shapes(config).items():
        if layer == 0:
            numbers += shape[0] * (shape[1] if len(shape) > 1 else 1)
    return int(_COLD_BYTES / (numbers * _WEIGHT_BYTES.get(weights, _LEAST_WEIGHT_BYTES))) + 1


def _table(rows: Seq[int], taken: dict[int, list[tuple[float, float]]], depth: int, call: float) -> Latency:
    """Times of the quickest passes. Row counts that there was no time for lie between those measured."""
    seen = sorted(taken)
    layer = plausible(seen, [_undisturbed([layers / depth for layers, _ in taken[count]]) for count in seen])
    head = plausible(seen, [_undisturbed([head for _, head in taken[count]]) for count in seen])
    return Latency(
        tuple(rows),
        tuple(interpolated(seen, layer, count) for count in rows),
        tuple(interpolated(seen, head, count) for count in rows),
        call,
        STEP_SECONDS,
    )


def _undisturbed(values: Seq[float]) -> float:
    """The least of a few, the second of many: passes that share the cores take several times as long."""
    return sorted(values)[(len(values) - 1) // 8]
