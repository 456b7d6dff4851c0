"""Programs as the graph builder takes them: handles, bytes, and conditions set where that is needed.

A conditional node does not look at memory: a kernel has to hand it the value (csrc/graph/set_conditions.cuh).
One such kernel serves all conditionals of a body that are still to come, and there is another only after a
kernel that may have written one of them, which is one that was given the array.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import prod
from typing import Any, TypeAlias

import numpy as np

from specee.cuda.arrays import Array, address, view
from specee.cuda.launcher import Argument
from specee.cuda.program import Condition, If, Launch, Program, Step, While
from specee.errors import ConfigurationError

Lowered: TypeAlias = tuple[Any, ...]  # see csrc/bindings/graph/steps.h


def lower(program: Program, function: Callable[[str], int]) -> tuple[list[Lowered], int]:
    """Steps for the builder, and how many conditionals are in them.

    ``function`` is the driver's handle of a kernel. Conditionals are numbered as they are met, those of a
    body before those inside of them. Raises ConfigurationError for arguments that are on no device.
    """
    lowering = _Lowering(function)
    return lowering.body(program), lowering.conditionals


def place(condition: Condition) -> int:
    """Where a condition's number is on the device."""
    return address(condition.values) + 4 * condition.index


def argument_bytes(argument: Argument) -> bytes:
    """An argument as a kernel's parameter. Raises ConfigurationError for an array that is on no device."""
    if argument is None:
        return np.uint64(0).tobytes()
    if isinstance(argument, np.generic):
        return argument.tobytes()
    at = address(argument)
    if at == 0:
        raise ConfigurationError(
            f"{type(argument).__name__} of shape {view(argument).shape} is on no device: allowed are torch "
            "tensors, CuPy arrays and what has __cuda_array_interface__"
        )
    return np.uint64(at).tobytes()


class _Lowering:
    def __init__(self, function: Callable[[str], int]) -> None:
        self._function, self._handles = function, dict[str, int]()
        self.conditionals = 0

    def body(self, steps: Program) -> list[Lowered]:
        numbers = {i: self._number() for i, step in enumerate(steps) if not isinstance(step, Launch)}
        lowered: list[Lowered] = []
        known: set[int] = set()  # steps whose conditional has what its number says
        for i, step in enumerate(steps):
            if isinstance(step, Launch):
                lowered.append(self._launch(step))
            else:
                if i not in known:
                    behind = {j: number for j, number in numbers.items() if j >= i and j not in known}
                    lowered.append(_set((number, _condition(steps[j])) for j, number in behind.items()))
                    known |= set(behind)
                lowered.append(self._conditional(step, numbers[i]))
            if known:
                ranges = _ranges(step)
                known -= {j for j in known if _inside(place(_condition(steps[j])), ranges)}
        return lowered

    def _number(self) -> int:
        self.conditionals += 1
        return self.conditionals - 1

    def _launch(self, step: Launch) -> Lowered:
        arguments = [argument_bytes(argument) for argument in step.arguments]
        if step.kernel not in self._handles:
            self._handles[step.kernel] = self._function(step.kernel)
        return ("launch", self._handles[step.kernel], step.grid, step.threads, 0, arguments)

    def _conditional(self, step: If | While, number: int) -> Lowered:
        body = self.body(step.body)
        if isinstance(step, If):
            return ("if", number, body)
        return ("while", number, [*body, _set([(number, step.condition)])])


def _condition(step: Step) -> Condition:
    assert not isinstance(step, Launch)
    return step.condition


def _set(conditions: Any) -> Lowered:
    return ("set", [(number, place(condition)) for number, condition in conditions])


def _launches(step: Step) -> Iterator[Launch]:
    if isinstance(step, Launch):
        yield step
        return
    for inner in step.body:
        yield from _launches(inner)


def _ranges(step: Step) -> list[tuple[int, int]]:
    """Where the memory begins and ends that kernels of a step are given."""
    arrays = [
        argument
        for launch in _launches(step)
        for argument in launch.arguments
        if argument is not None and not isinstance(argument, np.generic)
    ]
    return [(address(array), address(array) + _bytes(array)) for array in arrays]


def _inside(at: int, ranges: list[tuple[int, int]]) -> bool:
    return any(begin <= at < end for begin, end in ranges)


def _bytes(array: Array) -> int:
    return prod(view(array).shape) * int(array.dtype.itemsize)
