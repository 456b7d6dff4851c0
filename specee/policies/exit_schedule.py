"""SpecEE's two-level scheduling (T2): which layers' predictors are worth asking.

Offline: exits are skewed, so the layers that see more of them than the mean one. Online: the layers around
the latest exits of the same text, which hold the next one about four times in five. (Xu et al., ISCA 2025)
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

WINDOW, REACH = 5, 2
"""Tokens that are looked back at, and layers on either side of where they left."""


class ExitSchedule:
    """Active layers of each sequence, of ``layers`` with ``shares`` of exits; ``everywhere``: all of them."""

    def __init__(self, layers: Sequence[int], shares: Sequence[float], *, everywhere: bool = False) -> None:
        self._layers = tuple(layers)
        mean = sum(shares) / len(shares)
        often = [layer for layer, share in zip(layers, shares, strict=True) if share > mean]
        self._offline = frozenset(layers if everywhere else often or layers)
        self._latest: dict[int, deque[int]] = {}
        self._known: dict[tuple[int, ...], tuple[int, ...]] = {}

    def of(self, sequence: int) -> tuple[int, ...]:
        """Ascending."""
        latest = tuple(self._latest.get(sequence, ()))
        if latest not in self._known:
            near = {layer + step for layer in latest for step in range(-REACH, REACH + 1)}
            self._known[latest] = tuple([x for x in self._layers if x in self._offline or x in near])
        return self._known[latest]

    def observe(self, sequence: int, exits: Sequence[int]) -> None:
        """Where tokens of a sequence left, the latest one last; the last layer counts as an exit too."""
        self._latest.setdefault(sequence, deque(maxlen=WINDOW)).extend(exits)
