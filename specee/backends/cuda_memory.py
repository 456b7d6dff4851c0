"""Memory of a device, asked for before it is needed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from specee.backends import memory
from specee.cuda.graph import out_of_memory
from specee.errors import DeviceError, OutOfMemoryError

Free = Callable[[], int | None]
"""Bytes that can still be had, None if unknown."""


def free_on(device: torch.device) -> Free:
    """What a device has left, torch's own reserve included; of the host, what its system says."""

    def free() -> int | None:
        if device.type != "cuda":
            return memory.available()
        reserve = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + reserve

    return free


def check_room(free: Free, needed: int, what: str, advice: str) -> None:
    """Raise OutOfMemoryError if ``needed`` bytes are more than there are; unknown is fine."""
    room = free()
    if room is not None and needed > room:
        raise OutOfMemoryError(
            f"{what}: {needed >> 20} MiB are needed and {room >> 20} MiB available on the device; {advice}, "
            "or free memory"
        )


def is_out_of_memory(error: Exception) -> bool:
    """Whether the device had no memory left: by the driver's words, or those of CUDA's runtime."""
    if isinstance(error, OutOfMemoryError | torch.cuda.OutOfMemoryError):
        return True
    return (isinstance(error, DeviceError) and out_of_memory(error)) or "out of memory" in str(error)


def current(device: torch.device) -> AbstractContextManager[Any]:
    """The device is torch's current one inside, and the driver's."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()
