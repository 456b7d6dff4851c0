"""How long the parts of a step take on this machine: plain data, for objectives in seconds."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple


class Latency(NamedTuple):
    """Seconds, by rows that pass together.

    ``layer[i]``: one layer, ``head[i]``: the model's head, each for ``rows[i]`` rows (ascending, from 1).
    ``call``: what a native call costs beside them, ``step``: what the loop does for a turn. A drafted token
    costs no more than its layers and head: true where a call drafts whole rounds; where code of the user has
    a say there are two calls and some Python for each, which no policy reckons with.
    """

    rows: tuple[int, ...]
    layer: tuple[float, ...]
    head: tuple[float, ...]
    call: float = 0.0
    step: float = 0.0

    def layers_seconds(self, layers: int, rows: float) -> float:
        """``layers`` layers for ``rows`` rows; fractions of rows, as expectations are, lie between."""
        return layers * interpolated(self.rows, self.layer, rows)

    def head_seconds(self, rows: float) -> float:
        """The model's head for ``rows`` rows."""
        return interpolated(self.rows, self.head, rows)

    def columns(self, rows: Sequence[int]) -> tuple[list[float], list[float]]:
        """One layer's and the head's for each of ``rows``, which ascend."""
        return resampled(self.rows, self.layer, rows), resampled(self.rows, self.head, rows)


def interpolated(xs: Sequence[float], ys: Sequence[float], x: float) -> float:
    """On the line through the two nearest points: between them, or beyond the ends. 0 at x = 0 or below."""
    if x <= 0:
        return 0.0
    if len(xs) == 1:
        return ys[0]
    above = min(max(bisect_left(xs, x), 1), len(xs) - 1)
    left, right = xs[above - 1], xs[above]
    share = (x - left) / (right - left)
    return max(0.0, ys[above - 1] + share * (ys[above] - ys[above - 1]))


def resampled(xs: Sequence[float], ys: Sequence[float], at: Sequence[float]) -> list[float]:
    """The same for points that ascend, in one walk along the line."""
    found, right, last = [], 1, len(xs) - 1
    if last == 0:
        return [ys[0] if x > 0 else 0.0 for x in at]
    for x in at:
        while right < last and xs[right] < x:
            right += 1
        left, base = xs[right - 1], ys[right - 1]
        found.append(max(0.0, base + (x - left) / (xs[right] - left) * (ys[right] - base)) if x > 0 else 0.0)
    return found
