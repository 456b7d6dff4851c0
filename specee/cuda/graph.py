"""A program as one launch: a graph of the CUDA driver whose bodies are conditional nodes (csrc/graph)."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from specee.cuda.launcher import Launcher
from specee.cuda.lowering import lower
from specee.cuda.program import Program, run
from specee.errors import BackendUnavailableError, DeviceError

if TYPE_CHECKING:
    from specee import _graph

LIBRARY = "libcuda.so.1"
NodeFunction = Callable[[str], int]


@lru_cache(maxsize=4)
def driver(library: str = LIBRARY) -> _graph.Driver:
    """The CUDA driver. Raises BackendUnavailableError where there is none, or none that can be used."""
    try:
        module = importlib.import_module("specee._graph")
    except ImportError as error:
        raise BackendUnavailableError(
            f"specee._graph cannot be imported ({error}): it is built on Linux; reinstall specee there"
        ) from error
    found: _graph.Driver = module.Driver(library)
    return found


def missing(library: str = LIBRARY) -> str | None:
    """Why programs cannot be graphs on this machine, or None when they can."""
    try:
        return driver(library).conditional_missing or None
    except BackendUnavailableError as error:
        return str(error)


def out_of_memory(error: DeviceError) -> bool:
    """Whether the device has no memory for what the driver was asked for, by the driver's words."""
    return "CUDA_ERROR_OUT_OF_MEMORY" in str(error)


class Graph:
    """A program in one launch; it keeps the program's arrays and, by ``function``, its kernels.

    ``function`` gives the driver's handle of a kernel, in the context that is current
    (:meth:`specee.cuda.compiled.CompiledLauncher.function`, or that of the launcher for NVRTC). Raises
    BackendUnavailableError where the driver has no conditional nodes, ConfigurationError for arrays that are
    on no device, and DeviceError.
    """

    def __init__(self, program: Program, function: NodeFunction, *, library: str = LIBRARY) -> None:
        owner = driver(library)
        steps, conditionals = lower(program, function)
        self._kept = program, function
        self._graph = importlib.import_module("specee._graph").Graph(owner, steps, conditionals)

    def upload(self, stream: int = 0) -> None:
        """Copy it to the device ahead of the first launch. Raises DeviceError."""
        self._graph.upload(stream)

    def launch(self, stream: int = 0) -> None:
        """Put it on a stream, and do not wait for it. Raises DeviceError."""
        self._graph.launch(stream)


@dataclass(frozen=True)
class Means:
    """How programs get to the device.

    ``function`` gives graphs the driver's handle of a kernel; ``one_by_one``: launch kernel by kernel,
    whatever the driver can.
    """

    launcher: Launcher
    function: NodeFunction
    library: str = LIBRARY
    one_by_one: bool = False

    def missing(self) -> str | None:
        """Why programs are no graphs, or None when they are."""
        return "kernels are to be launched one by one" if self.one_by_one else missing(self.library)


class Round:
    """A program in one launch where the driver can, else kernel by kernel.

    ``how`` is "graph" or "launches", and ``reason`` why it is not a graph. Raises as :class:`Graph` does, but
    for drivers without conditional nodes.
    """

    def __init__(self, program: Program, means: Means) -> None:
        self._program, self._launcher = program, means.launcher
        self.reason = means.missing()
        self._graph = None
        if self.reason is None:
            self._graph = Graph(program, means.function, library=means.library)

    @property
    def how(self) -> str:
        """What :meth:`launch` does."""
        return "launches" if self._graph is None else "graph"

    def launch(self, stream: int = 0) -> None:
        """Run the program. Kernel by kernel, launchers choose the stream, and conditions are waited for."""
        if self._graph is None:
            run(self._program, self._launcher)
        else:
            self._graph.launch(stream)
