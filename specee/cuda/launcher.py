"""What puts a kernel on a device."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from typing import Any, Protocol

import numpy as np

Grid = tuple[int, int, int]
# An array of the device or None for a pointer, a numpy scalar for a number: its type is the kernel's.
Argument = Any


class Launcher(Protocol):
    """Launches kernels of csrc/cuda/kernels.cuh by name."""

    def launch(self, kernel: str, grid: Grid, threads: int, arguments: Seq[Argument]) -> None:
        """Put one kernel on the current stream of the arrays' device, and do not wait for it."""


def first_array(arguments: Seq[Argument]) -> Argument:
    """The array that says where a kernel is launched: the first one there is."""
    return next(a for a in arguments if a is not None and not isinstance(a, np.generic))


def i32(value: int) -> np.int32:
    """An ``int`` of a kernel. Raises OverflowError beyond 32 bits."""
    return np.int32(value)


def i64(value: int) -> np.int64:
    """An ``int64_t`` of a kernel."""
    return np.int64(value)


def f32(value: float) -> np.float32:
    """A ``float`` of a kernel."""
    return np.float32(value)
