"""Which width of an exit layer's adapter pays, if any, and what is said of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate

from specee.policies.objective import LONGEST, Objective

_GAIN = 1.01  # over what there is without an adapter: less is lost in the noise of a measurement
_NEARLY = 0.995  # of the best width's speed: then the narrower one will do


@dataclass(frozen=True)
class Head:
    """Of one exit layer: ``agreement`` of its tokens with the full model's, on texts held out.

    ``speed``: expected tokens a second over plain decoding's, at the best length of chains.
    """

    agreement: float
    speed: float


@dataclass(frozen=True)
class LayerReport:
    """Of one exit ``layer``: the model's ``own`` head, the ``trimmed`` one, and that behind adapters.

    ``adapted``: by width. ``kept``: the width that is in the file, None where none pays.
    """

    layer: int
    own: Head
    trimmed: Head
    adapted: Mapping[int, Head]
    kept: int | None


def speed(objective: Objective, layer: int, share: float, rate: float) -> float:
    """Of chains drafted at a layer, with a head of ``share`` times the bytes, that are accepted at ``rate``.

    Unrounded, which policies' plans are: widths differ by less.
    """
    tokens = list(accumulate([rate**n for n in range(LONGEST + 1)]))
    return (
        max(tokens[n] / objective.seconds(layer, share, n) for n in range(1, LONGEST + 1)) * objective.plain
    )


def choose(layer: int, own: Head, trimmed: Head, adapted: Mapping[int, Head]) -> LayerReport:
    """The narrowest width that is nearly as fast as any, where that beats plain decoding and no adapter."""
    kept: int | None = None
    best = max((head.speed for head in adapted.values()), default=0.0)
    if best > _GAIN * max(1.0, own.speed, trimmed.speed):
        kept = min(width for width, head in adapted.items() if head.speed >= _NEARLY * best)
    return LayerReport(layer, own, trimmed, adapted, kept)
