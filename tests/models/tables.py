"""Helpers: a checkpoint's slabs as whole arrays."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from specee.models.table import Slab


def widen(array: np.ndarray) -> np.ndarray:
    """float32 of any slab format; bfloat16 is the upper half of a float32."""
    if array.dtype == np.uint16:
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array.astype(np.float32)


def collect(slabs: Iterable[Slab]) -> dict[tuple[str, int], np.ndarray]:
    """Whole tensors; fails unless the slabs of each tensor follow each other without gap."""
    parts: dict[tuple[str, int], list[np.ndarray]] = {}
    for slab in slabs:
        assert slab.array.flags.c_contiguous
        rows = parts.setdefault((slab.role, slab.layer), [])
        assert slab.row_begin == sum(map(len, rows)), (slab.role, slab.layer, slab.row_begin)
        rows.append(slab.array)
    return {key: np.concatenate(rows) for key, rows in parts.items()}
