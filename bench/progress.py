"""A progress bar where tqdm is installed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

T = TypeVar("T")


def progress(items: Iterable[T], unit: str, *, total: int | None = None) -> Iterable[T]:
    """``items``, shown on stderr as they pass."""
    try:
        from tqdm import tqdm
    except ImportError:
        return items
    shown: Iterable[T] = tqdm(items, unit=unit, total=total, leave=False)
    return shown
