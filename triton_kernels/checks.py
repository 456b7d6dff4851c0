"""What launchers refuse: wrong shapes, dtypes, devices and layouts, told by name before anything runs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton

from specee.errors import KernelArgumentError

from .launch import is_recording

FLOATS = (torch.float32, torch.float16, torch.bfloat16)
INTEGERS = (torch.int32, torch.int64)
MAX_ROWS = 64
MAX_CANDIDATES = 16


def tensor(
    name: str, value: torch.Tensor, shape: Sequence[int | None], dtypes: Sequence[torch.dtype]
) -> None:
    """Raise KernelArgumentError unless ``value`` is contiguous and has this shape (None: any) and dtype."""
    fits = value.dim() == len(shape) and all(
        want is None or want == have for want, have in zip(shape, value.shape, strict=True)
    )
    if not fits:
        wanted = "(" + ", ".join("any" if size is None else str(size) for size in shape) + ")"
        raise KernelArgumentError(f"{name} has shape {tuple(value.shape)}: allowed is {wanted}; reshape it")
    if value.dtype not in dtypes:
        allowed = " or ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
        raise KernelArgumentError(f"{name} is {value.dtype}: allowed is {allowed}; convert it")
    if not value.is_contiguous():
        raise KernelArgumentError(
            f"{name} has strides {value.stride()}: only contiguous tensors are allowed; call .contiguous()"
        )


def size(name: str, value: int, low: int, high: int) -> None:
    """Raise KernelArgumentError unless ``low <= value <= high``."""
    if not low <= value <= high:
        raise KernelArgumentError(f"{name} is {value}: allowed are {low} to {high}")


def multiple(name: str, value: int, of: int) -> None:
    """Raise KernelArgumentError unless ``value`` is a positive multiple of ``of``."""
    if value <= 0 or value % of:
        raise KernelArgumentError(f"{name} is {value}: allowed are multiples of {of}; pad it")


def device(**tensors: torch.Tensor) -> None:
    """Raise KernelArgumentError unless all are on one device, and it runs kernels on their types."""
    first, *others = tensors
    where = tensors[first].device
    for name in others:
        if tensors[name].device != where:
            raise KernelArgumentError(
                f"{name} is on {tensors[name].device} and {first} on {where}: allowed is one device; move it"
            )
    if is_recording():
        return
    interpreted = triton.knobs.runtime.interpret
    if where.type != "cuda" and not interpreted:
        raise KernelArgumentError(
            f"{first} is on {where}: these kernels run on cuda, or on cpu with TRITON_INTERPRET=1 set "
            "before triton is imported"
        )
    if interpreted:
        for name, value in tensors.items():
            if value.dtype == torch.bfloat16:
                raise KernelArgumentError(
                    f"{name} is bfloat16: Triton's interpreter computes that wrongly; "
                    "allowed are float32 and float16"
                )
