"""Launches of passes that have been before, to be repeated.

What a pass launches depends on its course alone, and its arrays stand where they stood.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, NamedTuple

from specee.backends.cuda_kept import OfSequences
from specee.backends.cuda_repeats import Recording
from specee.backends.reference_sequence import ReferenceSequence

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


class Courses(OfSequences[Recording]):
    """The latest few courses."""

    def __init__(self) -> None:
        super().__init__(MOST)

    def find(self, course: Course, room: int) -> Recording | None:
        """What was launched for ``course`` while the workspace had that room, None if it is not known."""
        # The arrays of those with another room are no longer the workspace's.
        return self.look_up(course.sequences, _rest(course, room), lambda rest: _room(rest) != room)

    def add(self, course: Course, room: int, recording: Recording) -> None:
        """Remember what was launched."""
        self.remember(course.sequences, _rest(course, room), recording)


def _rest(course: Course, room: int) -> Hashable:
    return room, course.done, course.to_layer, course.depth, course.kept


def _room(rest: Any) -> Any:
    return rest[0]
