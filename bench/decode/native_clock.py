"""How long calls into the native engine take: stand-ins for it and its sequences, with a stopwatch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from specee.errors import BackendUnavailableError


class NativeClock:
    """Seconds since :meth:`reset`: in native code, and in the stand-ins themselves.

    The latter is no part of what is measured: it belongs to neither side. ``now`` says what the time is.
    """

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self.now = now
        self.reset()

    def reset(self) -> None:
        """Start again."""
        self.native = 0.0
        self.own = 0.0
        self._start = self.now()

    @property
    def total(self) -> float:
        """Seconds since the start, without those of the stand-ins."""
        return self.now() - self._start - self.own

    def timed(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """``call`` that takes stand-ins for what they stand for, and gives one for a sequence."""

        def instead(*arguments: Any, **options: Any) -> Any:
            entered = self.now()
            real = [_real(argument) for argument in arguments]
            begin = self.now()
            try:
                result = call(*real, **options)
            finally:
                end = self.now()
                self.native += end - begin
                self.own += begin - entered
            return self._stand_in(result)

        return instead

    def _stand_in(self, result: Any) -> Any:
        from specee import _cpu

        return StandIn(result, self) if isinstance(result, _cpu.Sequence) else result


class StandIn:
    """An object of the native engine whose methods and properties are timed."""

    def __init__(self, real: Any, clock: NativeClock) -> None:
        self.real = real
        self._clock = clock

    def __getattr__(self, name: str) -> Any:
        now = self._clock.now
        begin = now()
        found = getattr(self.real, name)
        end = now()
        if not callable(found):
            self._clock.native += end - begin
            return found
        method = self._clock.timed(found)
        self.__dict__[name] = method  # the next call finds it without coming here
        self._clock.own += now() - begin
        return method


def _real(argument: Any) -> Any:
    """``argument``, or where it is work, (sequence, slots) pairs, the same with real sequences."""
    if isinstance(argument, list) and argument and isinstance(argument[0], tuple):
        return [(one.real if isinstance(one, StandIn) else one, *rest) for one, *rest in argument]
    return argument


@contextmanager
def watched(backend: Any, now: Callable[[], float] = time.perf_counter) -> Iterator[NativeClock]:
    """A clock of everything that ``backend`` (cpu) has its engine do within the block.

    Sequences made within are of no use after it. Raises BackendUnavailableError for another backend.
    """
    engine = getattr(backend, "_engine", None)
    if engine is None:
        raise BackendUnavailableError(f"backend {backend.name!r} makes no native calls: use backend 'cpu'")
    clock = NativeClock(now)
    backend._engine = StandIn(engine, clock)
    try:
        yield clock
    finally:
        backend._engine = engine
