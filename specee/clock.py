"""Where the time of a step goes: seconds in backend calls, by what they were for."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal, ParamSpec, TypeVar

from specee.policies import Times

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class Clock:
    """Adds up the seconds of calls, by the fields of :class:`.Times` that they belong to."""

    __slots__ = ("draft", "draft_head", "head", "shadow", "verify")

    def __init__(self) -> None:
        self.draft = self.draft_head = self.verify = self.head = self.shadow = 0.0

    def timed(
        self,
        part: Literal["draft", "draft_head", "verify", "head", "shadow"],
        call: Callable[Arguments, Result],
        /,
        *arguments: Arguments.args,
        **options: Arguments.kwargs,
    ) -> Result:
        """Make a call, and count its time to ``part`` if it returns."""
        begin = time.perf_counter()
        result = call(*arguments, **options)
        setattr(self, part, getattr(self, part) + time.perf_counter() - begin)
        return result

    @property
    def times(self) -> Times:
        """All calls so far."""
        return Times(self.draft, self.draft_head, self.verify, self.head, self.shadow)
