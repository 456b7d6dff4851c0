"""What a step costs by a latency table: the model of :mod:`specee.policies.objective`, on real counts."""

from __future__ import annotations

from specee.policies import Latency, Times


class Prices:
    """Of a model of ``layers`` layers."""

    def __init__(self, latency: Latency, layers: int) -> None:
        self._latency = latency
        self._layers = layers
        self._rounds: dict[tuple[int, int, int], Times] = {}
        self.plain = self.seconds(self.times(1, 0, 0))
        """Seconds of a step of plain decoding."""

    def prompt(self, tokens: int) -> float:
        """Seconds of the step that computes a prompt, with every policy."""
        return self.seconds(self.times(tokens, 0, 0))

    def times(self, waiting: int, layer: int, drafted: int) -> Times:
        """Of a round with ``waiting`` rows to compute and ``drafted`` tokens at ``layer``; 0 is copies."""
        key = waiting, layer, drafted
        times = self._rounds.get(key)
        if times is None:
            times = self._rounds[key] = self._times(*key)
        return times

    def look(self, states: int) -> float:
        """Shadow tokens of some states."""
        return self._latency.head_seconds(states) + self._latency.call

    def seconds(self, times: Times) -> float:
        """Of the whole step."""
        return times.total + self._latency.step

    def _times(self, waiting: int, layer: int, drafted: int) -> Times:
        table, rows = self._latency, waiting + drafted
        head = table.head_seconds(drafted + 1)
        if not layer or not drafted:
            return Times(verify=table.layers_seconds(self._layers, rows) + table.call, head=head)
        # Up to the exit layer one row remains to be verified, the newest draft's.
        first = table.layers_seconds(layer, waiting)
        one = table.layers_seconds(layer, 1)
        deep = table.layers_seconds(self._layers - layer, rows)
        return Times(
            draft=first + (drafted - 1) * one,
            draft_head=drafted * table.head_seconds(1),
            verify=one + deep + table.call,
            head=head,
        )
