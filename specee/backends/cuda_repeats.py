"""Launches that come again: written down the first time, repeated unseen, and one launch of a graph then.

Checking shapes takes Python longer than small kernels take a device; so it is done once. Handing kernels over
one by one takes longer than they do, too.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq

import numpy as np

from specee.backends.cuda_memory import is_out_of_memory
from specee.cuda.arrays import stream_of
from specee.cuda.graph import Graph, Means
from specee.cuda.launcher import Argument, Grid, Launcher
from specee.cuda.program import Launch
from specee.errors import SpeceeError

# To make a graph takes Python about as long as to launch its kernels so often: who comes less often does not
# pay for one, and nobody pays more than twice what he had to.
ONE_BY_ONE = 3


class Graphs:
    """Makes graphs where the driver can; ``failed`` is why one could not be made, and none is after that."""

    def __init__(self, means: Means | None) -> None:
        self._means = None if means is None or means.missing() is not None else means
        self.failed: str | None = None

    def make(self, launches: Seq[Launch]) -> Graph | None:
        """One launch of all of them; None where there is no such way, or no memory for it."""
        means = self._means
        if means is None or self.failed is not None:
            return None
        try:
            return Graph(tuple(launches), means.function, library=means.library)
        except (SpeceeError, RuntimeError) as error:  # the driver's, or torch's own
            if not is_out_of_memory(error):
                self.failed = f"launches that come again could not be made a graph: {error}"
            return None


class Recording:
    """Launches, and remembers what it has launched; arrays have to stand where they stood."""

    def __init__(self, launcher: Launcher, graphs: Graphs) -> None:
        self._launcher, self._graphs = launcher, graphs
        self.launches: list[Launch] = []
        self._times = 0
        self._graph: Graph | None = None

    def launch(self, kernel: str, grid: Grid, threads: int, arguments: Seq[Argument]) -> None:
        """See :class:`specee.cuda.launcher.Launcher`."""
        self._launcher.launch(kernel, grid, threads, arguments)
        self.launches.append(Launch(kernel, grid, threads, tuple(arguments)))

    def repeat(self) -> None:
        """Launch all of it again. Raises DeviceError."""
        self._times += 1
        if self._times == ONE_BY_ONE:
            self._graph = self._graphs.make(self.launches)
        if self._graph is not None:
            self._graph.launch(self._stream())
            return
        for one in self.launches:
            self._launcher.launch(one.kernel, one.grid, one.threads, one.arguments)

    def _stream(self) -> int:
        """Where launchers put the first of them, and so all."""
        given = self.launches[0].arguments
        return stream_of(next(a for a in given if a is not None and not isinstance(a, np.generic)))
