"""Launches of passes that have been before, to be repeated without checking them again.

Checking shapes takes Python longer than small kernels take a device. What a pass launches depends on its
course alone, and its arrays stand where they stood; so a course is checked once.
"""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict, deque
from collections.abc import Sequence as Seq
from typing import Any, NamedTuple

from specee.backends.reference_sequence import ReferenceSequence
from specee.cuda.launcher import Argument, Grid, Launcher

MOST = 32


class Course(NamedTuple):
    """All that the launches of a pass depend on, but for numbers that kernels read.

    ``done`` layers of each row, ascending, and whose it is; ``depth`` of the tails; layers ``kept`` on the
    way.
    """

    done: tuple[int, ...]
    sequences: tuple[ReferenceSequence, ...]
    to_layer: int
    depth: int
    kept: frozenset[int]


class Recording:
    """Launches, and remembers what it has launched."""

    def __init__(self, launcher: Launcher) -> None:
        self._launcher = launcher
        self.launches: list[tuple[str, Grid, int, Seq[Argument]]] = []

    def launch(self, kernel: str, grid: Grid, threads: int, arguments: Seq[Argument]) -> None:
        """See :class:`specee.cuda.launcher.Launcher`."""
        self._launcher.launch(kernel, grid, threads, arguments)
        self.launches.append((kernel, grid, threads, arguments))

    def repeat(self) -> None:
        """Launch all of it again."""
        launch = self._launcher.launch
        for kernel, grid, threads, arguments in self.launches:
            launch(kernel, grid, threads, arguments)


class Courses:
    """The latest few courses; those of a sequence go with it, or its cache would stay.

    A sequence may go at any moment, in another thread or while one of these calls runs. So its finalizer
    only writes down that it has gone; its courses go at once if nobody is at work here, else with the call
    that is. A sequence that gets its id is born later, and finds none of them.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[Any, ...], Recording] = OrderedDict()
        self._watched: set[int] = set()
        self._gone: deque[int] = deque()
        self._lock = threading.Lock()  # not reentrant: a finalizer may run inside of a call

    def __len__(self) -> int:
        return len(self._known)

    def find(self, course: Course, room: int) -> Recording | None:
        """What was launched for ``course`` while the workspace had that room, None if it is not known."""
        with self._lock:
            self._clear()
            for key in [key for key in self._known if key[0] != room]:
                del self._known[key]  # its arrays are no longer the workspace's
            key = _key(course, room)
            found = self._known.get(key)
            if found is not None:
                self._known.move_to_end(key)
        self._clear_if_free()
        return found

    def add(self, course: Course, room: int, recording: Recording) -> None:
        """Remember what was launched."""
        with self._lock:
            self._clear()
            for sequence in course.sequences:
                if id(sequence) not in self._watched:
                    self._watched.add(id(sequence))
                    weakref.finalize(sequence, self._forget, id(sequence)).atexit = False
            self._known[_key(course, room)] = recording
            while len(self._known) > MOST:
                self._known.popitem(last=False)
        self._clear_if_free()

    def _forget(self, sequence: int) -> None:
        self._gone.append(sequence)
        self._clear_if_free()

    def _clear_if_free(self) -> None:
        """Drop what has gone, unless a call is at work: that one looks again when it ends."""
        while self._gone and self._lock.acquire(blocking=False):
            try:
                self._clear()
            finally:
                self._lock.release()

    def _clear(self) -> None:
        while self._gone:
            sequence = self._gone.popleft()
            self._watched.discard(sequence)
            for key in [key for key in self._known if sequence in key[2]]:
                del self._known[key]


def _key(course: Course, room: int) -> tuple[Any, ...]:
    owners = tuple(id(sequence) for sequence in course.sequences)
    return room, course.done, owners, course.to_layer, course.depth, course.kept
