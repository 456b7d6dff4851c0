"""Static settings, all of them: what a policy that chooses for itself is measured against."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from specee.policies import Latency
from specee.policies.objective import LONGEST
from specee.replay.prices import Prices
from specee.replay.trace import Trace, column


class Static(NamedTuple):
    """``length`` tokens a round drafted at ``layer``, and the speed over plain decoding. 0, 0 is that."""

    layer: int
    length: int
    ratio: float


class Statics:
    """Every static setting on the texts of a trace.

    Gives what :func:`.replay` gives for ``layerskip``, some hundred times as fast: how far drafts are right
    is counted once for each layer.
    """

    def __init__(self, trace: Trace, latency: Latency | None = None) -> None:
        self._trace = trace
        self._prices = Prices(latency or trace.latency, trace.layers)
        self._plain = sum(text.generated - 1 for text in trace.texts) * self._prices.plain
        self._right: dict[tuple[int, int], list[int]] = {}
        self._sure: dict[tuple[int, int, float], list[int]] = {}
        self._ratios: dict[tuple[int, int, float], float] = {}

    def ratio(self, layer: int, length: int, stop_below: float = 0.0) -> float:
        """Speed over plain decoding; drafting stops after a token less sure than ``stop_below``."""
        key = layer, length, stop_below
        if key not in self._ratios:
            texts = range(len(self._trace.texts))
            seconds = sum(self._seconds(index, *key) for index in texts) if layer and length else self._plain
            self._ratios[key] = self._plain / seconds if seconds else 1.0
        return self._ratios[key]

    def sweep(self) -> list[Static]:
        """All layers and lengths, the best first; plain decoding is among them."""
        settings = [
            Static(layer, length, self.ratio(layer, length))
            for layer in range(1, self._trace.layers)
            for length in range(1, LONGEST + 1)
        ]
        return sorted([Static(0, 0, 1.0), *settings], key=lambda static: -static.ratio)

    def _seconds(self, index: int, layer: int, length: int, stop_below: float) -> float:
        text = self._trace.texts[index]
        right, sure = self._of(index, layer), self._until_unsure(index, layer, stop_below)
        prices, total = self._prices, 0.0
        at, end = text.prompt, len(text)
        if at > 1:  # the prompt comes by itself
            at += 1
        else:
            total -= prices.prompt(1)
        while at < end:
            here = at - 1 - text.first
            drafted = min(length, end - at - 1, sure[here])
            total += prices.seconds(prices.times(1, layer, drafted))
            at += min(drafted, right[here]) + 1
        return total

    def _of(self, index: int, layer: int) -> list[int]:
        """How many drafts in a row would be right, from each recorded position."""
        key = index, layer
        if key not in self._right:
            self._right[key] = _until(~self._trace.texts[index].matches[:, layer - 1])
        return self._right[key]

    def _until_unsure(self, index: int, layer: int, stop_below: float) -> list[int]:
        """How many drafts are made from each recorded position, with the one that ends them."""
        key = index, layer, stop_below
        if key not in self._sure:
            confidences = np.array(column(self._trace.texts[index].confidences, layer))
            self._sure[key] = [count + 1 for count in _until(confidences < stop_below)]
        return self._sure[key]


def best_static(trace: Trace, latency: Latency | None = None) -> Static:
    """Of an exhaustive sweep over layers and lengths."""
    return Statics(trace, latency).sweep()[0]


def _until(ends: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> list[int]:
    """For each position, how many there are before the next one that ends something."""
    at = np.flatnonzero(ends)
    stops = np.append(at, len(ends))
    here = np.arange(len(ends))
    counts: list[int] = (stops[np.searchsorted(at, here)] - here).tolist()
    return counts
