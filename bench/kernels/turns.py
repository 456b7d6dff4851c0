"""Timing: ours and torch take turns within one case, so that a machine that drifts slows both."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ..spread import Spread, ratio, spread

_QUIET = 0.0005  # seconds to look for
_WARM = (
    0.003  # seconds of calls not counted: threads wake, clocks rise, and the other's data leave the caches
)
_PATIENCE = 0.2


@dataclass(frozen=True)
class Effort:
    """``turns`` of each side, of about ``seconds`` each in all, and at most ``calls`` calls a turn."""

    turns: int
    seconds: float
    calls: int


FULL = Effort(turns=8, seconds=0.5, calls=40)
QUICK = Effort(turns=3, seconds=0.06, calls=20)


@dataclass
class Times:
    """Seconds of every call: a list for each turn."""

    ours: list[list[float]]
    torch: list[list[float]] = field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        """Medians in seconds, and how often faster than torch, turn by turn; without torch, ours alone."""
        mine = [statistics.median(turn) for turn in self.ours]
        found: dict[str, Any] = {"seconds": _of_calls(self.ours)}
        if self.torch:
            theirs = [statistics.median(turn) for turn in self.torch]
            found |= {"torch_seconds": _of_calls(self.torch), "speedup": ratio(theirs, mine)}
        return found


def take_turns(
    benchmark: Any, ours: Callable[[], object], torch: Callable[[], object] | None, effort: Effort
) -> Times | None:
    """Time ``ours`` through pytest-benchmark, a call a round, and ``torch`` between its rounds.

    None if the benchmark is disabled: then ``ours`` is called once.
    """
    calls = _calls(ours, effort)
    torch_calls = 0 if torch is None else _calls(torch, effort)
    measured: list[list[float]] = []
    rounds = 0

    def before_a_round() -> None:
        nonlocal rounds
        if rounds % calls == 0:
            if torch is not None:
                settle()
                warm_up(torch)
                measured.append([_seconds(torch) for _ in range(torch_calls)])
            settle()
            warm_up(ours)
        rounds += 1

    benchmark.pedantic(ours, setup=before_a_round, rounds=effort.turns * calls, iterations=1)
    if benchmark.stats is None:
        return None
    data = list(benchmark.stats.stats.data)
    return Times([data[begin : begin + calls] for begin in range(0, len(data), calls)], measured)


def settle() -> None:
    """Wait until no thread of this process is busy: those of a library spin for a while after its call."""
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        before = time.process_time()
        time.sleep(_QUIET)
        if time.process_time() - before < _QUIET / 4:
            return


def warm_up(function: Callable[[], object]) -> None:
    """Call for a moment, at least once."""
    end = time.perf_counter() + _WARM
    function()
    while time.perf_counter() < end:
        function()


def _calls(function: Callable[[], object], effort: Effort) -> int:
    """Calls a turn that suit the time there is."""
    settle()
    function()
    estimate = min(_seconds(function) for _ in range(2))
    return max(1, min(effort.calls, int(effort.seconds / effort.turns / estimate)))


def _seconds(function: Callable[[], object]) -> float:
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


def _of_calls(turns: list[list[float]]) -> Spread:
    return spread([seconds for turn in turns for seconds in turn])
