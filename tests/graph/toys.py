"""Random programs of toy kernels (tests/native/graph/toys.cuh), and what they do, reckoned in Python."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from specee.cuda.launcher import Launcher, f32, i32, i64
from specee.cuda.program import Condition, Program, Recorder

NUMBERS, FLAGS, DEPTHS = 6, 8, 6
_THREADS = 32


@dataclass(frozen=True)
class Mix:
    at: int
    amount: int


@dataclass(frozen=True)
class Compare:
    at: int
    flag: int
    modulus: int
    limit: float


@dataclass(frozen=True)
class When:
    flag: int
    body: list[Any]


@dataclass(frozen=True)
class Repeat:
    """``times`` times, counted down in a flag of its own."""

    flag: int
    times: int
    body: list[Any]


def random_steps(rng: np.random.Generator, depth: int = 0, most: int = 6) -> list[Any]:
    """Steps of a body, ``depth`` bodies deep."""
    steps: list[Any] = []
    for _ in range(int(rng.integers(0, most + 1))):
        kind = rng.choice(["mix", "compare", "when", "repeat"], p=[0.4, 0.25, 0.25, 0.1])
        if kind in ("when", "repeat") and depth == DEPTHS:
            kind = "mix"
        if kind == "mix":
            steps.append(Mix(int(rng.integers(NUMBERS)), int(rng.integers(1, 100))))
        elif kind == "compare":
            modulus = int(rng.integers(2, 6))
            limit = float(rng.uniform(0.5, modulus))
            steps.append(Compare(int(rng.integers(NUMBERS)), int(rng.integers(FLAGS)), modulus, limit))
        elif kind == "when":
            steps.append(When(int(rng.integers(FLAGS)), random_steps(rng, depth + 1, most)))
        else:
            body = random_steps(rng, depth + 1, most // 2)
            steps.append(Repeat(FLAGS + depth, int(rng.integers(0, 4)), body))
    return steps


def evaluate(steps: list[Any], numbers: np.ndarray, flags: np.ndarray) -> int:
    """Change both as the program does; how many kernels ran."""
    ran = 0
    for step in steps:
        if isinstance(step, Mix):
            numbers[step.at] = (int(numbers[step.at]) * 3 + step.amount) % 10007
            ran += 1
        elif isinstance(step, Compare):
            flags[step.flag] = int(int(numbers[step.at]) % step.modulus < np.float32(step.limit))
            ran += 1
        elif isinstance(step, When):
            if flags[step.flag]:
                ran += evaluate(step.body, numbers, flags)
        else:
            flags[step.flag] = step.times
            ran += 1
            while flags[step.flag]:
                ran += evaluate(step.body, numbers, flags) + 1
                flags[step.flag] -= 1
    return ran


@dataclass
class Toy:
    """``numbers`` and ``flags`` of a device, and a recorder that programs are written down with."""

    numbers: Any
    flags: Any
    recorder: Recorder = field(default_factory=Recorder)

    def program(self, steps: list[Any]) -> Program:
        self._record(steps)
        return self.recorder.program()

    def _record(self, steps: list[Any]) -> None:
        for step in steps:
            if isinstance(step, Mix):
                mix(self.recorder, self.numbers, step.at, step.amount)
            elif isinstance(step, Compare):
                numbers = [i32(step.at), self.flags, i32(step.flag), i32(step.modulus), f32(step.limit)]
                self.recorder.launch("toy_compare", (1, 1, 1), _THREADS, [self.numbers, *numbers])
            elif isinstance(step, When):
                with self.recorder.when(Condition(self.flags, step.flag)):
                    self._record(step.body)
            else:
                store(self.recorder, self.flags, step.flag, step.times)
                with self.recorder.repeat(Condition(self.flags, step.flag)):
                    self._record(step.body)
                    count = [self.flags, i32(step.flag)]
                    self.recorder.launch("toy_count_down", (1, 1, 1), _THREADS, count)


def mix(launcher: Launcher, numbers: Any, at: int, amount: int) -> None:
    launcher.launch("toy_mix", (1, 1, 1), _THREADS, [numbers, i32(at), i32(amount)])


def store(launcher: Launcher, flags: Any, flag: int, value: int) -> None:
    launcher.launch("toy_store", (1, 1, 1), _THREADS, [flags, i32(flag), i64(value)])


def inputs(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Numbers and flags to begin with."""
    numbers = rng.integers(0, 10007, NUMBERS).astype(np.int32)
    return numbers, rng.integers(0, 2, FLAGS + DEPTHS).astype(np.int32)
