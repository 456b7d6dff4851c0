"""How long layers and the head take on this machine: measured once, refined by every step."""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections.abc import Callable
from collections.abc import Sequence as Seq

from specee.backends.protocol import Backend
from specee.engine.latency_measure import measure
from specee.policies import Latency, Times

# Weights of the newest step: in what all row counts have in common, in one row count, in the loop's own time.
_DRIFT, _ENTRY, _LOOP = 0.05, 0.02, 0.05
_MOST_DRIFT = 0.2  # of a step that stands for several
# Deviations, in parts of what was expected. Outside these a step was disturbed; one entry's is cut at _FAR.
_LEAST, _MOST = -0.5, 1.0
_FAR = 0.25
_STEADY = 0.03
_LEAST_STEP = 1e-7
# What may change before there is a new table, and how many steps go by before one looks.
_CHANGE, _EVERY = 0.03, 16


class LatencyMeter:
    """The latency table of a backend. Generations may share it, also in several threads.

    A step's time says two things: how fast the machine is now (a scale common to all entries, which follows
    within tens of steps), and what its number of rows takes beside others (an entry's own, over hundreds).
    """

    def __init__(
        self, backend: Backend, clock: Callable[[], float] = time.perf_counter, budget_s: float = 0.4
    ) -> None:
        self._backend, self._clock, self._budget = backend, clock, budget_s
        self._lock = threading.Lock()
        self._table: Latency | None = None

    def table(self) -> Latency:
        """Measured on first use; then the same object until some entry has changed by more than 3 %."""
        if self._table is None:
            with self._lock:
                if self._table is None:
                    self._start(measure(self._backend, self._clock, self._budget))
        assert self._table is not None
        return self._table

    def _start(self, table: Latency) -> None:
        self._most, self._call = table.rows[-1], table.call
        self._step = table.step
        self._between = [_neighbours(table.rows, rows) for rows in range(self._most + 1)]
        self._layer = _Entries(table.rows, table.layer, self._between)
        self._head = _Entries(table.rows, table.head, self._between)
        self._scale, self._trend, self._seen = 1.0, 0.0, 0
        self._before = self._newer = 0.0  # deviations of the last two steps
        self._table = table

    def observe(
        self,
        rows: int,
        layer_rows: Seq[tuple[int, int]],
        times: Times,
        step_seconds: float,
        together: int = 1,
    ) -> None:
        """Refine by a step that took ``rows`` rows through the head, and ``layer_rows`` to it.

        ``together``: steps that one native call took, which this one stands for, with its share of what they
        cost beside their work.

        Each pair is a number of layers and the rows that passed them together: ``[(8, 1), (22, 5)]`` after a
        chain of 4 drafted at layer 8 of 30. Nothing is learnt before the first :meth:`table`, nor from more
        rows than the table has (there it is extrapolated), at the head or in any part.
        """
        if self._table is None or max([rows, *[count for _, count in layer_rows]]) > self._most:
            return
        with self._lock:
            self._learn(rows, layer_rows, times, step_seconds, together)
            self._seen += together
            if self._seen >= _EVERY:
                self._seen = 0
                self._publish()

    def _learn(
        self,
        rows: int,
        layer_rows: Seq[tuple[int, int]],
        times: Times,
        step_seconds: float,
        together: int,
    ) -> None:
        """No calls in here: it is run in every step."""
        draft, draft_head, verify, head, shadow = times
        at = self._layer.at
        layers_expected, head_expected = 0.0, self._head.at[rows]
        for layers, count in layer_rows:
            layers_expected += layers * at[count]
        if layers_expected <= 0 or head_expected <= 0 or verify + head <= 0:
            return  # a clock too coarse for this model
        scale = self._scale
        newest = (verify + head) / (scale * (layers_expected + head_expected)) - 1
        disturbed = not _LEAST < newest < _MOST
        if disturbed:
            newest = _LEAST if newest <= _LEAST else _MOST
        # The middle one of three: a step that was disturbed alone moves nothing.
        low, high = self._before, self._newer
        self._before, self._newer = high, newest
        if low > high:
            low, high = high, low
        middle = low if newest < low else high if newest > high else newest
        drift = min(_DRIFT * together, _MOST_DRIFT)
        self._scale = scale = scale * (1 + drift * middle)
        # While the scale lags behind what steps have in common, nothing can be said about an entry.
        self._trend = trend = self._trend + drift * (middle - self._trend)
        if -_STEADY < trend < _STEADY and not disturbed:
            off = verify / (scale * layers_expected) - 1
            off = _FAR if off > _FAR else -_FAR if off < -_FAR else off
            for layers, count in layer_rows:
                self._layer.off[count] += off * layers * at[count] / layers_expected
            off = head / (scale * head_expected) - 1
            self._head.off[rows] += _FAR if off > _FAR else -_FAR if off < -_FAR else off
        around = step_seconds - draft - draft_head - verify - head - shadow - self._call / together
        off = around / self._step - 1
        off = _LOOP * (_MOST if off > _MOST else _LEAST if off < _LEAST else off)
        self._step = max(self._step * (1 + off), _LEAST_STEP)

    def _publish(self) -> None:
        """Work deviations in; replace the table if it has changed enough to matter."""
        table = self._table
        assert table is not None
        self._layer.work_in()
        self._head.work_in()
        layer = tuple([self._scale * seconds for seconds in self._layer.seconds])
        head = tuple([self._scale * seconds for seconds in self._head.seconds])
        plain = self._backend.config.num_layers * layer[0] + head[0] + self._step
        if (
            _differs(layer, table.layer)
            or _differs(head, table.head)
            or abs(self._step - table.step) > _CHANGE * plain
        ):
            self._table = Latency(table.rows, layer, head, self._call, self._step)


class _Entries:
    """Seconds of one column of the table, without the scale.

    ``at[rows]``: what they mean for every number of rows. ``off[rows]``: sum of deviations seen since then.
    """

    def __init__(self, rows: Seq[int], seconds: Seq[float], between: Seq[tuple[int, int, float]]) -> None:
        self._rows, self.seconds, self._between = rows, list(seconds), between
        self.off = [0.0] * len(between)
        self.at = self._expected()

    def work_in(self) -> None:
        """Each deviation moves the entries on both sides, by how near they are."""
        for rows, off in enumerate(self.off):
            if off:
                left, right, share = self._between[rows]
                self._move(left, _ENTRY * off * (1 - share))
                self._move(right, _ENTRY * off * share)
                self.off[rows] = 0.0
        self.at = self._expected()

    def _move(self, entry: int, off: float) -> None:
        """The others give way: more rows never take less, nor more than they would in smaller passes."""
        value = self.seconds[entry] * (1 + off)
        for other, rows in enumerate(self._rows):
            bounds = sorted((value, value * rows / self._rows[entry]))
            self.seconds[other] = min(max(self.seconds[other], bounds[0]), bounds[1])

    def _expected(self) -> list[float]:
        seconds = self.seconds
        return [
            seconds[left] + share * (seconds[right] - seconds[left]) for left, right, share in self._between
        ]


def _neighbours(table: Seq[int], rows: int) -> tuple[int, int, float]:
    """The two entries that ``rows`` lies between, and the share of the second."""
    right = bisect_left(table, rows)
    left = max(right - 1, 0)
    return left, right, (rows - table[left]) / (table[right] - table[left]) if left < right else 0.0


def _differs(new: Seq[float], old: Seq[float]) -> bool:
    return any(abs(a - b) > _CHANGE * b for a, b in zip(new, old, strict=True))
