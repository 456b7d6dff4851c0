"""Arrays of the host that kernels of the fake driver can be given."""

from __future__ import annotations

from typing import Any

import numpy as np


class HostArray(np.ndarray):
    """An array of the host that says it is on a device."""

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "data": (self.ctypes.data, False),
            "shape": self.shape,
            "typestr": self.dtype.str,
            "version": 3,
        }


def put(array: Any, dtype: Any = None) -> HostArray:
    """A copy that kernels of the fake can be given."""
    found = np.array(array, dtype=dtype, order="C", copy=True)
    aligned = np.empty(found.nbytes + 16, np.uint8)
    first = -aligned.ctypes.data % 16
    copy = aligned[first : first + found.nbytes].view(found.dtype).reshape(found.shape)
    copy[...] = found
    return copy.view(HostArray)
