"""Static settings of layerskip: which there are, and which are the fast ones by a short first pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from ..progress import Meter
from .interleaved import Bench, Contest
from .lossless import PLAIN

LENGTHS = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12)
AROUND = range(-2, 4)
STRIDES = 6  # of the coarse grid over the depth
BEST = 6
TOKENS, PROMPTS = 48, 6


def static(layer: int, length: int) -> str:
    """The policy of a setting."""
    return f"layerskip:exit_layer={layer},speculation_length={length}"


def exit_layers(k: int, layers: int) -> list[int]:
    """Those around ``k``, a coarse grid, and the first two: where a text repeats a token they are right."""
    near = {k + offset for offset in AROUND}
    stride = max(1, layers // STRIDES)
    return sorted(
        layer for layer in {1, 2} | near | set(range(stride, layers, stride)) if 1 <= layer < layers
    )


def grid(k: int, layers: int) -> list[str]:
    """All settings that are swept."""
    return [static(layer, length) for layer in exit_layers(k, layers) for length in LENGTHS]


class Ranking(NamedTuple):
    """Settings of a sweep, fast ones first."""

    settings: list[str]

    @property
    def best(self) -> list[str]:
        """The few that may prove to be the best."""
        return self.settings[:BEST]

    @property
    def median(self) -> str:
        """Half of the others are faster."""
        return self.settings[len(self.settings) // 2]

    @property
    def worst(self) -> str:
        """The slowest."""
        return self.settings[-1]

    @property
    def chosen(self) -> list[str]:
        """What is to be measured in full, each once."""
        return list(dict.fromkeys([*self.best, self.median, self.worst]))


def short(bench: Bench) -> Bench:
    """The same with the first pass's fewer tokens, once each."""
    return replace(bench, tokens=min(bench.tokens, TOKENS), passes=1)


def few(texts: Sequence[list[int]]) -> list[list[int]]:
    """Those of the first pass, spread over all: what is fast depends on the text."""
    count = min(PROMPTS, len(texts))
    return [texts[index * len(texts) // count] for index in range(count)]


def swept(bench: Bench, texts: Sequence[list[int]], settings: Sequence[str], meter: Meter) -> Contest:
    """The first pass: all settings on a few texts."""
    return short(bench).compare(few(texts), settings, meter)


def ranked(sweep: Contest) -> Ranking:
    """By their speed."""
    settings = [policy for policy in sweep.policies if policy != PLAIN]
    return Ranking(sorted(settings, key=lambda policy: -sweep.total(policy).speed))
