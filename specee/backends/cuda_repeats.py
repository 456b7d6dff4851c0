"""Launches that come again: written down the first time, repeated unseen, and one launch of a graph then.

Checking shapes takes Python longer than small kernels take a device; so it is done once. Handing kernels over
one by one takes longer than they do, too.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Hashable
from collections.abc import Sequence as Seq

import torch

from specee.backends.cuda_memory import current, is_out_of_memory
from specee.cuda.arrays import stream_of
from specee.cuda.graph import Graph, Means
from specee.cuda.launcher import Argument, Grid, Launcher, first_array
from specee.cuda.program import Launch
from specee.errors import SpeceeError

# Making a graph is taken to cost as much as launching its kernels one by one so often (to be measured on a
# device). Launches that come less often do not pay for one, and none pay more than twice what they had to.
ONE_BY_ONE = 3


class Graphs:
    """Makes graphs of recordings where the driver can, and takes them back where memory is short.

    ``failed``: why one could not be made; none is after that.
    """

    def __init__(self, means: Means | None, device: torch.device) -> None:
        self._means = None if means is None or means.missing() is not None else means
        self._device = device
        self.failed: str | None = None
        self._lock = threading.Lock()  # columns are of any thread
        self._made: weakref.WeakSet[Recording] = weakref.WeakSet()

    def make(self, recording: Recording) -> Graph | None:
        """Its ``graph`` from now on; None where there is no such way, no need, or no memory for it."""
        means = self._means
        if means is None or self.failed is not None or len(recording.launches) < 2:
            return None
        try:
            with current(self._device):  # a graph is of the context that it is made in
                graph = Graph(tuple(recording.launches), means.function, library=means.library)
                graph.upload(recording.stream())  # what there is no memory for is to fail here
        except (SpeceeError, RuntimeError) as error:  # the driver's, or torch's own
            if not is_out_of_memory(error):
                self.failed = f"launches that come again could not be made a graph: {error}"
            return None
        with self._lock:
            recording.graph = graph
            self._made.add(recording)
        return graph

    def drop(self) -> bool:
        """Give back the memory of all graphs; whether there are any."""
        with self._lock:
            made = list(self._made)
            self._made.clear()
            for recording in made:
                recording.forget_graph()
        return bool(made)


class Recording:
    """Launches, and remembers what it has launched; arrays have to stand where they stood."""

    def __init__(self, launcher: Launcher, graphs: Graphs) -> None:
        self._launcher, self._graphs = launcher, graphs
        self.launches: list[Launch] = []
        self._one_by_one = 1  # how often; this is the first time
        self._next = ONE_BY_ONE  # how often until a graph is tried
        self.graph: Graph | None = None

    def launch(self, kernel: str, grid: Grid, threads: int, arguments: Seq[Argument]) -> None:
        """See :class:`specee.cuda.launcher.Launcher`."""
        self._launcher.launch(kernel, grid, threads, arguments)
        self.launches.append(Launch(kernel, grid, threads, tuple(arguments)))

    def repeat(self) -> None:
        """Launch all of it again. Raises DeviceError."""
        graph = self.graph
        if graph is None and self._one_by_one == self._next:
            self._next *= 2  # where there is no memory for it, there may be later
            graph = self._graphs.make(self)
        if graph is not None:
            graph.launch(self.stream())
            return
        self._one_by_one += 1
        for one in self.launches:
            self._launcher.launch(one.kernel, one.grid, one.threads, one.arguments)

    def forget_graph(self) -> None:
        """Until it has come as often again."""
        self.graph, self._one_by_one, self._next = None, 0, ONE_BY_ONE

    def stream(self) -> int:
        """Where launchers put the first of them, and so all."""
        return stream_of(first_array(self.launches[0].arguments))


class Repeats:
    """Recordings of what is launched over the same arrays, by what else it depends on.

    ``graphs`` is the backend's own, and so says whose they are.
    """

    def __init__(self, launcher: Launcher, graphs: Graphs) -> None:
        self._launcher, self.graphs = launcher, graphs
        self.known: dict[Hashable, Recording] = {}

    def run(self, key: Hashable, launch: Callable[[Launcher], None]) -> None:
        """What ``launch`` launches, which is asked once for each ``key``. Raises what it raises."""
        known = self.known.get(key)
        if known is not None:
            known.repeat()
            return
        recording = Recording(self._launcher, self.graphs)
        launch(recording)
        self.known[key] = recording
