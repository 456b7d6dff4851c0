"""Colours of a trace: exit layers on a scale from shallow to deep, other sources apart from it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from specee.cli.labels import source_label
from specee.policies import DraftSource, ExitLayer

_SHALLOW, _DEEP = 165, 310  # hues: green over blue to purple
_OTHERS = (
    45,
    15,
    75,
    0,
)  # hues: yellow, which is prompt lookup's where there is nothing else, and neighbours


@dataclass(frozen=True)
class Swatch:
    """How tokens of one source look: ``name`` is a CSS class, ``colour`` and ``line`` are CSS values.

    Colours let the page shine through, so that they do on light and dark ones.
    """

    source: DraftSource
    name: str
    label: str
    colour: str
    line: str


def swatches(sources: Iterable[DraftSource | None]) -> list[Swatch]:
    """One for each source there is, exit layers from shallow to deep first."""
    found = list(dict.fromkeys(source for source in sources if source is not None))
    layers = [source for source in found if isinstance(source, ExitLayer)]
    layers.sort(key=lambda source: (source.layer, source.adapted))
    others = [source for source in found if not isinstance(source, ExitLayer)]
    hues = [_on_scale(source.layer, layers[0].layer, layers[-1].layer) for source in layers]
    hues += [_OTHERS[index % len(_OTHERS)] for index in range(len(others))]
    ordered: list[DraftSource] = [*layers, *others]
    return [
        Swatch(source, f"s{index}", source_label(source), f"hsl({hue} 85% 50% / 0.35)", _line(source))
        for index, (source, hue) in enumerate(zip(ordered, hues, strict=True))
    ]


def _on_scale(layer: int, first: int, last: int) -> int:
    share = (layer - first) / (last - first) if last > first else 0.0
    return round(_SHALLOW + share * (_DEEP - _SHALLOW))


def _line(source: DraftSource) -> str:
    """Adapted drafts are dotted under, so that they differ from plain ones of the same layer."""
    return "2px dotted" if isinstance(source, ExitLayer) and source.adapted else "none"
