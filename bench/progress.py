"""How far a measurement is: a progress bar where tqdm is installed, and lines that say what is left."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from typing import Any, TypeVar

T = TypeVar("T")


def progress(items: Iterable[T], unit: str, *, total: int | None = None) -> Iterable[T]:
    """``items``, shown on stderr as they pass."""
    try:
        from tqdm import tqdm
    except ImportError:
        return items
    shown: Iterable[T] = tqdm(items, unit=unit, total=total, leave=False)
    return shown


class Meter:
    """Progress of nested work, counted in units that take about the same time each."""

    def __init__(self, total: int, unit: str) -> None:
        self.total = total
        self.done = 0
        self._start = time.perf_counter()
        self._bar: Any = None
        try:
            from tqdm import tqdm
        except ImportError:
            return
        self._bar = tqdm(total=total, unit=unit, leave=False)

    def advance(self, count: int) -> None:
        """So many more are done."""
        self.done += count
        if self._bar is not None:
            self._bar.update(count)

    @property
    def left(self) -> str:
        """The time that the rest will take at the pace so far, in words."""
        if self.done >= self.total:
            return "nothing left"
        if not self.done:
            return "time left unknown"
        seconds = (time.perf_counter() - self._start) / self.done * (self.total - self.done)
        return f"about {seconds / 60:.0f} min left" if seconds >= 90 else f"about {seconds:.0f} s left"

    def say(self, text: str) -> None:
        """A line on stderr, with the time left."""
        line = f"{text}; {self.left}"
        if self._bar is not None:
            self._bar.write(line, file=sys.stderr)
        else:
            print(line, file=sys.stderr)

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()
