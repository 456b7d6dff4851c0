"""A series of numbers as one line of text."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from itertools import pairwise

WIDTH = 60
_LEVELS = "▁▂▃▄▅▆▇█"
_PLAIN = str.maketrans(_LEVELS, "01234567")


def sparkline(values: Seq[float | None], width: int = WIDTH) -> str:
    """At most ``width`` columns, each the mean of its values, and what the lowest and highest stand for.

    None is a gap: it counts in no mean, and a column of nothing else is a space. A series that never
    changes is its value; without any value the line is empty.
    """
    columns = [_mean(part) for part in _parts(values, width)]
    known = [column for column in columns if column is not None]
    if not known:
        return ""
    low, high = min(known), max(known)
    if low == high:
        return f"{low:g} throughout"
    drawn = "".join(" " if column is None else _level(column, low, high) for column in columns)
    each = -(-len(values) // width)
    return f"{drawn}  {low:.3g} to {high:.3g}" + (f", means of up to {each} steps" if each > 1 else "")


def plain(line: str) -> str:
    """The same with digits for blocks, for terminals that cannot show those."""
    return line.translate(_PLAIN)


def _parts(values: Seq[float | None], width: int) -> list[Seq[float | None]]:
    """As many as fit, equally long up to one value, none of them empty."""
    count = min(width, len(values))
    edges = [index * len(values) // count for index in range(count + 1)] if count else [0]
    return [values[begin:end] for begin, end in pairwise(edges)]


def _mean(part: Seq[float | None]) -> float | None:
    known = [value for value in part if value is not None]
    return sum(known) / len(known) if known else None


def _level(value: float, low: float, high: float) -> str:
    return _LEVELS[round((value - low) / (high - low) * (len(_LEVELS) - 1))]
