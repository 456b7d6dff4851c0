"""A bound on the wall time of a fit, shared out among its stages; it knows of the runs that were killed.

A stage gets its share of what is left for it and those after it, so what one does not need the later ones
have. Seconds are counted from the beginning of the first run, without the time between a kill and the next
run, and kept in a file every few seconds: a kill forgets no more than those.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from specee.errors import CheckpointError
from specee.whole_file import write_whole

# What stages take, more or less, when all do what they would without a bound.
_SHARES = {"texts": 40, "states": 12, "drafter": 28, "report": 3, "adapters": 6, "exits": 6, "calibration": 5}
_KEPT_EVERY = 5.0  # seconds


class Pace:
    """Of one stage, from ``begin`` to ``end`` seconds, None where there is no bound."""

    def __init__(self, timetable: Timetable, stage: str, begin: float, end: float | None) -> None:
        self._timetable, self._stage, self._begin, self._end = timetable, stage, begin, end

    def over(self, share: float = 1.0, needs: float = 0.0) -> bool:
        """Whether ``share`` of the stage's time is over, or would be ``needs`` seconds from now."""
        if self._end is None:
            return False
        until = self._begin + share * (self._end - self._begin)
        return self._timetable.is_closed(self._stage) or self._timetable.spent() + needs >= until

    def progress(self, done: int, total: int, share: float = 1.0) -> float:
        """How far it is, from 0 to 1: by what is done, or by ``share`` of its time where that goes faster."""
        by_work = done / total
        if self._end is None or self._end <= self._begin:
            return by_work
        by_time = (self._timetable.spent() - self._begin) / (self._end - self._begin)
        return min(1.0, max(by_work, by_time / share))

    def left(self) -> float:
        """Seconds, infinite without a bound."""
        return float("inf") if self._end is None else max(0.0, self._end - self._timetable.spent())

    def spent(self) -> float:
        """Seconds of the whole fit so far."""
        return self._timetable.spent()

    def close(self, done: int, total: int, number: int = 0) -> None:
        """No more of it, now or in a run that goes on; ``number``: what the stage wants to know again."""
        self._timetable.close(self._stage, done, total, number)

    @property
    def number(self) -> int | None:
        """What :meth:`close` was told, None for a stage that is not closed."""
        return self._timetable.number_of(self._stage)


class Timetable:
    """``seconds`` for everything, None for as many as it takes; ``path`` keeps what is spent.

    ``clock`` gives seconds. Raises CheckpointError for a damaged file.
    """

    def __init__(self, seconds: float | None, path: Path, clock: Callable[[], float]) -> None:
        self._seconds, self._path, self._clock = seconds, path, clock
        self._ends: dict[str, list[float]] = {}
        self._closed: dict[str, list[int]] = {}
        self._before = 0.0
        if seconds is not None and path.exists():
            self._read()
        self._start = self._kept = clock()

    def spent(self) -> float:
        """Seconds, in this run and in those that it goes on from."""
        now = self._clock()
        if now - self._kept >= _KEPT_EVERY:
            self._keep(now)
        return self._before + now - self._start

    def begin(self, stage: str) -> Pace:
        """The stage's time, as it was given in an earlier run or is given now."""
        if self._seconds is None:
            return Pace(self, stage, 0.0, None)
        if stage not in self._ends:
            names = list(_SHARES)
            spent, later = self.spent(), names[names.index(stage) :]
            left = max(0.0, self._seconds - spent)
            end = spent + left * _SHARES[stage] / sum(_SHARES[name] for name in later)
            self._ends[stage] = [spent, end]
            self._keep(self._clock())
        return Pace(self, stage, *self._ends[stage])

    def close(self, stage: str, done: int, total: int, number: int) -> None:
        """See :meth:`Pace.close`."""
        if self._seconds is not None and stage not in self._closed:
            self._closed[stage] = [done, total, number]
            self._keep(self._clock())

    def is_closed(self, stage: str) -> bool:
        """Whether it was closed, in this run or an earlier one."""
        return stage in self._closed

    def number_of(self, stage: str) -> int | None:
        """See :attr:`Pace.number`."""
        return self._closed[stage][2] if stage in self._closed else None

    def cut_short(self) -> dict[str, list[int]]:
        """Stages that had no time for all there was to do: what was done, and what there was."""
        return {stage: [done, total] for stage, (done, total, _) in self._closed.items() if done < total}

    def _keep(self, now: float) -> None:
        self._kept = now
        if self._seconds is None:
            return
        said = {"spent": self._before + now - self._start, "ends": self._ends, "closed": self._closed}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(self._path, json.dumps(said).encode())

    def _read(self) -> None:
        try:
            said = json.loads(self._path.read_text(encoding="utf-8"))
            self._before, self._ends, self._closed = float(said["spent"]), said["ends"], said["closed"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{self._path}: no complete timetable ({error}). Delete it.") from error
