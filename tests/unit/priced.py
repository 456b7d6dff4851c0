"""A backend without arithmetic on a clock of its own: what passes take there is known exactly."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Seq
from dataclasses import dataclass, field, replace
from typing import Any, cast

from specee.backends.protocol import Backend
from specee.types import ModelConfig
from tests.random_model import BASE


@dataclass
class Prices:
    """Seconds of one layer and of the head for some rows, and of a call beside its work."""

    layer: Callable[[int], float] = lambda rows: 1e-4 * (10 + rows)
    head: Callable[[int], float] = lambda rows: 1e-3 * (20 + rows)
    call: float = 3e-5
    disturbance: Callable[[], float] = lambda: 1.0
    """What each call's work takes longer by."""


@dataclass
class PricedSequence:
    """Layers done by slot; slots of speculative rows follow the committed ones."""

    capacity: int
    done: dict[int, int] = field(default_factory=dict)
    speculative: tuple[int, ...] = ()

    def append(self, tokens: Seq[int]) -> range:
        assert not self.speculative
        return self._add(tokens)

    def branch(self, tokens: Seq[int]) -> list[int]:
        assert self.done, "no committed position to branch from"
        assert not self.speculative, "rows of an earlier pass are still there"
        self.speculative = tuple(self._add(tokens))
        return list(self.speculative)

    def prune(self, rows: Seq[int]) -> None:
        assert list(rows) == [self.speculative[0]]
        self.done = {slot: layers for slot, layers in self.done.items() if slot not in self.speculative}
        self.speculative = ()

    def _add(self, tokens: Seq[int]) -> range:
        begin = len(self.done)
        slots = range(begin, begin + len(tokens))
        assert slots
        assert slots.stop <= self.capacity
        self.done |= dict.fromkeys(slots, 0)
        return slots


class PricedBackend:
    """As much of the protocol as measuring needs."""

    def __init__(self, prices: Prices, **shape: Any) -> None:
        layers = shape.get("num_layers", BASE.num_layers)
        self.config: ModelConfig = replace(BASE, windows=(0,) * layers, **shape)
        self.weights = "fp32"
        self.prices, self.now = prices, 0.0
        self.sequences: list[PricedSequence] = []
        self.passes: list[tuple[int, int]] = []
        """Layers and rows of every pass that went on to the head."""

    @property
    def protocol(self) -> Backend:
        return cast(Backend, self)

    def clock(self) -> float:
        return self.now

    def sequence(self, capacity: int) -> PricedSequence:
        assert 1 <= capacity <= self.config.max_position
        self.sequences.append(PricedSequence(capacity))
        return self.sequences[-1]

    def advance(self, work: Seq[tuple[PricedSequence, Seq[int]]], to_layer: int) -> None:
        self.now += self._layers(work, to_layer) + self.prices.call

    def argmax(self, work: Seq[tuple[PricedSequence, Seq[int]]]) -> None:
        self.now += self._head(work) + self.prices.call

    def verify(
        self, work: Seq[tuple[PricedSequence, Seq[int]]], sampling: None
    ) -> tuple[list[int], float, float]:
        layers, head = self._layers(work, self.config.num_layers), self._head(work)
        self.now += layers + head + self.prices.call
        return [0] * len(work[0][1]), layers, head

    def _layers(self, work: Seq[tuple[PricedSequence, Seq[int]]], to_layer: int) -> float:
        """All rows that are not there yet come along, a layer at a time."""
        [(sequence, _)] = work
        seconds = 0.0
        for layer in range(to_layer):
            rows = [slot for slot, done in sequence.done.items() if done == layer]
            seconds += self.prices.layer(len(rows)) if rows else 0.0
            sequence.done |= dict.fromkeys(rows, layer + 1)
        return seconds * self.prices.disturbance()

    def _head(self, work: Seq[tuple[PricedSequence, Seq[int]]]) -> float:
        [(sequence, slots)] = work
        self.passes.append((sequence.done[slots[0]], len(slots)))
        return self.prices.head(len(slots)) * self.prices.disturbance()
