"""A round as plain data: kernels in order, and bodies that a number on the device runs or repeats.

A :class:`Recorder` is a launcher: ops that are called with it are written down. :func:`run` carries a program
out kernel by kernel; :mod:`specee.cuda.graph` makes one launch of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence as Seq
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias

from specee.cuda.arrays import Array, checked
from specee.cuda.launcher import Argument, Grid, Launcher
from specee.errors import ConfigurationError


@dataclass(frozen=True, eq=False)
class Condition:
    """Whether ``values[index]`` is not 0; ``values`` (any,) int32 on the device, which kernels write.

    Raises ConfigurationError.
    """

    values: Array
    index: int = 0

    def __post_init__(self) -> None:
        (count,) = checked("condition.values", self.values, "int32", (None,))
        if not 0 <= self.index < count:
            raise ConfigurationError(f"condition {self.index} of {count}: allowed are 0..{count - 1}")

    def holds(self) -> bool:
        """What it is now; waits for the kernels before it."""
        return bool(int(self.values[self.index]))


@dataclass(frozen=True, eq=False)
class Launch:
    """A kernel of ``grid`` blocks; arguments as :class:`specee.cuda.launcher.Launcher` takes them."""

    kernel: str
    grid: Grid
    threads: int
    arguments: tuple[Argument, ...]


@dataclass(frozen=True, eq=False)
class If:
    """``body`` once, where ``condition`` holds when it is its turn."""

    condition: Condition
    body: Program


@dataclass(frozen=True, eq=False)
class While:
    """``body`` again and again, as long as ``condition`` holds before it."""

    condition: Condition
    body: Program


Step: TypeAlias = Launch | If | While
Program: TypeAlias = tuple[Step, ...]


class Recorder:
    """Writes down what is launched with it, in order; :meth:`when` and :meth:`repeat` open bodies."""

    def __init__(self) -> None:
        self._open: list[list[Step]] = [[]]

    def launch(self, kernel: str, grid: Grid, threads: int, arguments: Seq[Argument]) -> None:
        """See :class:`specee.cuda.launcher.Launcher`; nothing runs."""
        self._open[-1].append(Launch(kernel, grid, threads, tuple(arguments)))

    @contextmanager
    def when(self, condition: Condition) -> Iterator[None]:
        """What is launched inside runs only where ``condition`` holds."""
        with self._body() as body:
            yield
        self._open[-1].append(If(condition, tuple(body)))

    @contextmanager
    def repeat(self, condition: Condition) -> Iterator[None]:
        """What is launched inside is repeated as long as ``condition`` holds."""
        with self._body() as body:
            yield
        self._open[-1].append(While(condition, tuple(body)))

    @contextmanager
    def _body(self) -> Iterator[list[Step]]:
        body: list[Step] = []
        self._open.append(body)
        try:
            yield body
        finally:
            self._open.pop()

    def program(self) -> Program:
        """What there is so far. Raises ConfigurationError inside of a body."""
        if len(self._open) > 1:
            raise ConfigurationError(f"{len(self._open) - 1} bodies are open: ask for the program after them")
        return tuple(self._open[0])


def run(program: Program, launcher: Launcher) -> None:
    """Launch a program's kernels one by one; each condition is read back, which waits for the device."""
    for step in program:
        if isinstance(step, Launch):
            launcher.launch(step.kernel, step.grid, step.threads, step.arguments)
        elif isinstance(step, If):
            if step.condition.holds():
                run(step.body, launcher)
        else:
            while step.condition.holds():
                run(step.body, launcher)
