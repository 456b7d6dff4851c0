"""Where the time of a step goes: seconds in backend calls, by what they were for."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from specee.policies import Times

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class Clock:
    """Adds up the seconds of calls, by the fields of :class:`.Times` that they belong to."""

    def __init__(self) -> None:
        self.begin = time.perf_counter()
        self._spent = {"draft": 0.0, "draft_head": 0.0, "verify": 0.0, "head": 0.0}

    def timed(
        self,
        part: str,
        call: Callable[Arguments, Result],
        /,
        *arguments: Arguments.args,
        **options: Arguments.kwargs,
    ) -> Result:
        """Make a call, and count its time to ``part`` if it returns."""
        begin = time.perf_counter()
        result = call(*arguments, **options)
        self._spent[part] += time.perf_counter() - begin
        return result

    @property
    def times(self) -> Times:
        """All calls so far."""
        return Times(**self._spent)

    @property
    def elapsed(self) -> float:
        """Seconds since the clock was made."""
        return time.perf_counter() - self.begin
