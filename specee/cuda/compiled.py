"""Kernels that nvcc compiled into ``specee._cuda``."""

from __future__ import annotations

from collections.abc import Sequence as Seq

from specee import _cuda
from specee.cuda.arrays import device_of, stream_of
from specee.cuda.launcher import Argument, Grid, first_array


class CompiledLauncher:
    """Launches on the current stream of the library that the first array comes from."""

    def launch(self, kernel: str, grid: Grid, threads: int, arguments: Seq[Argument]) -> None:
        """See :class:`specee.cuda.launcher.Launcher`. Raises ConfigurationError for what is no argument."""
        first = first_array(arguments)
        given = [_as_taken(argument) for argument in arguments]
        _cuda.launch(kernel, grid, threads, given, device_of(first), stream_of(first))

    def function(self, kernel: str, device: int = 0) -> int:
        """The driver's handle of a kernel, for graphs. Raises ConfigurationError for one that is unknown."""
        return _cuda.function(kernel, device)


def _as_taken(argument: Argument) -> Argument:
    """The address of a torch tensor on a device: its interfaces cost more, and bf16 may have none."""
    return argument.data_ptr() if getattr(argument, "is_cuda", False) else argument
