"""The one place where kernels are started, and where launches are written down instead of made."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any, NamedTuple

import torch

# Products and sums may contract to fused multiply-adds: said here, because Triton's default differs between
# releases.
OPTIONS = {"enable_fp_fusion": True}


class Launch(NamedTuple):
    """What a launcher asked for: enough to compile the very variant that it would run."""

    kernel: Any
    grid: tuple[int, ...]
    arguments: tuple[Any, ...]
    constants: dict[str, Any]
    warps: int
    stages: int


_recorded: ContextVar[list[Launch] | None] = ContextVar("recorded", default=None)


@contextmanager
def recording() -> Iterator[list[Launch]]:
    """Launchers called inside run nothing and list their launches; tensors may be on the meta device."""
    launches: list[Launch] = []
    token = _recorded.set(launches)
    try:
        yield launches
    finally:
        _recorded.reset(token)


def is_recording() -> bool:
    """Whether launches are only written down."""
    return _recorded.get() is not None


def launch(
    kernel: Any, grid: tuple[int, ...], *arguments: Any, warps: int = 4, stages: int = 2, **constants: Any
) -> None:
    """Run ``kernel`` over ``grid`` on the device of its first argument, a tensor."""
    launches = _recorded.get()
    if launches is not None:
        launches.append(Launch(kernel, grid, arguments, constants, warps, stages))
        return
    if 0 in grid:
        return
    device = arguments[0].device
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        kernel[grid](*arguments, **constants, num_warps=warps, num_stages=stages, **OPTIONS)
