"""Arrays of any library, as far as kernels need to know them: shape, dtype, device, stream."""

from __future__ import annotations

import sys
from collections.abc import Sequence as Seq
from typing import Any, NamedTuple

from specee.errors import ConfigurationError

Array = Any
Shape = Seq[int | None]

# What an array may be called that holds a kernel's numbers: numpy and CuPy have no bf16, and older torch no
# unsigned integers.
_ACCEPTED = {
    "bfloat16": ("bfloat16", "uint16"),
    "float16": ("float16",),
    "uint16": ("uint16", "int16", "float16"),
    "uint64": ("uint64", "int64"),
}


# Kernels read these sixteen bytes at a time.
_ALIGNED = ("bfloat16", "float16", "uint8")


class View(NamedTuple):
    """Shape and dtype of an array, and whether its numbers are one behind the other (C order)."""

    shape: tuple[int, ...]
    dtype: str
    contiguous: bool


def view(array: Array) -> View:
    """What an array of torch, CuPy or numpy says of itself."""
    dtype = str(array.dtype).rpartition(".")[2]
    if hasattr(array, "is_contiguous"):
        return View(tuple(array.shape), dtype, bool(array.is_contiguous()))
    return View(tuple(array.shape), dtype, bool(array.flags.c_contiguous))


def checked_rows(name: str, array: Array, dtype: str, rows: int, width: int) -> int:
    """Numbers from a row of ``array`` (rows, width) to the next: its rows may be parts of longer ones.

    Raises ConfigurationError as :func:`checked` does.
    """
    if len(array.shape) != 2 or view(array).contiguous:
        return checked(name, array, dtype, (rows, width))[1]
    checked(name, array[:1], dtype, (1, width))
    if array.shape[0] != rows:
        raise ConfigurationError(f"{name} has {array.shape[0]} rows: allowed are {rows}")
    numbers = array.stride(0) if hasattr(array, "is_contiguous") else array.strides[0] // array.itemsize
    if numbers < width:
        raise ConfigurationError(f"{name} has rows {numbers} numbers apart: allowed are {width} and more")
    return int(numbers)


def checked(name: str, array: Array, dtype: str, shape: Shape) -> tuple[int, ...]:
    """The shape of ``array`` if it is C-contiguous, aligned and as said; None stands for any size.

    Raises ConfigurationError.
    """
    allowed = _ACCEPTED.get(dtype, (dtype,))
    seen = view(array)
    fits = len(seen.shape) == len(shape) and all(
        want is None or want == size for want, size in zip(shape, seen.shape, strict=True)
    )
    if not fits or seen.dtype not in allowed or not seen.contiguous:
        sizes = ", ".join("any" if size is None else str(size) for size in shape)
        order = "" if seen.contiguous else ", not contiguous"
        raise ConfigurationError(
            f"{name} is {seen.dtype} of shape {seen.shape}{order}: allowed is C-contiguous "
            f"{' or '.join(allowed)} of shape ({sizes})"
        )
    if dtype in _ALIGNED and (at := address(array)) % 16:
        raise ConfigurationError(
            f"{name} begins at {at:#x}: allowed are multiples of 16; give a copy instead of this view"
        )
    return seen.shape


def device_of(array: Array) -> int:
    """Number of the CUDA device that holds ``array``; 0 where its library does not say."""
    device = getattr(array, "device", None)
    number = getattr(device, "index", None)
    number = number if isinstance(number, int) else getattr(device, "id", 0)
    return int(number)


def stream_of(array: Array) -> int:
    """Handle of the current stream of the library that ``array`` comes from; 0, the default one, else."""
    library = type(array).__module__.partition(".")[0]
    if library == "torch" and array.is_cuda:
        return int(sys.modules["torch"].cuda.current_stream(array.device).cuda_stream)
    if library == "cupy":
        return int(sys.modules["cupy"].cuda.get_current_stream().ptr)
    return 0


def address(array: Array) -> int:
    """Where the first number of an array of the device is; 0 of one that is not on any."""
    if hasattr(array, "data_ptr"):
        return int(array.data_ptr())
    interface = getattr(array, "__cuda_array_interface__", None)
    return int(interface["data"][0]) if interface else 0
