"""The same kernels, compiled at run time by NVRTC through CuPy, which keeps what it compiled on disk."""

from __future__ import annotations

from collections.abc import Sequence as Seq

import cupy
import numpy as np

from specee.cuda.arrays import address, device_of, stream_of
from specee.cuda.launcher import Argument, Grid, first_array
from specee.cuda.sources import OPTIONS, PROGRAM, include_options


class NvrtcLauncher:
    """One module for all devices; CuPy loads it where a kernel is first needed."""

    def __init__(self) -> None:
        self._module = cupy.RawModule(code=PROGRAM, options=(*OPTIONS, *include_options()), backend="nvrtc")

    def launch(self, kernel: str, grid: Grid, threads: int, arguments: Seq[Argument]) -> None:
        """See :class:`specee.cuda.launcher.Launcher`."""
        first = first_array(arguments)
        with cupy.cuda.Device(device_of(first)), cupy.cuda.ExternalStream(stream_of(first)):
            values = [self._value(argument) for argument in arguments]
            self._module.get_function(kernel)(grid, (threads,), tuple(values))

    def function(self, kernel: str, device: int = 0) -> int:
        """The driver's handle of a kernel on a device, for graphs; it lives as long as this launcher."""
        with cupy.cuda.Device(device):
            return int(self._module.get_function(kernel).kernel.ptr)

    @staticmethod
    def _value(argument: Argument) -> np.generic:
        if argument is None:
            return np.uintp(0)
        return argument if isinstance(argument, np.generic) else np.uintp(address(argument))
