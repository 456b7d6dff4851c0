"""What a draft plan is worth: expected tokens per second over those of plain decoding.

DEL (Entezari Zarch et al., "DEL: Context-aware dynamic exit layer for efficient self-speculative decoding",
2025) maximises expected tokens per layer, (1 - a^(d+1)) / (1 - a) / (L + d l) for the acceptance rate a of
exit layer l and speculation length d. Here layers are replaced by measured seconds, and the head counts.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

from specee.policies.latency import Latency

LONGEST = 17
"""Most drafts a round, as in the paper."""
_STEPS = 64  # acceptance rates are told apart to 1/64: nobody knows them better


class Choice(NamedTuple):
    """How far to draft, and what comes of it: ``value`` over plain decoding, which has 1."""

    length: int
    value: float


class Acceptance(NamedTuple):
    """Of drafts whose confidence reaches a threshold, and of those under it.

    ``sure``: how many of all reach it. ``rate_sure`` and ``rate_unsure``: how many of each kind are accepted.
    """

    sure: float
    rate_sure: float
    rate_unsure: float


class Objective:
    """Of one latency table, for ``sequences`` that step together and draft alike."""

    def __init__(self, latency: Latency, layers: int, sequences: int = 1) -> None:
        count = sequences
        self.layers = layers
        self.sequences = sequences
        self._layer = [latency.layers_seconds(1, count * rows) for rows in range(LONGEST + 3)]
        self._head = [latency.head_seconds(count * rows) for rows in range(LONGEST + 3)]
        self._turn, self._step = 2 * latency.call + latency.turn, latency.step + latency.call
        self._latency = latency
        self._best: dict[tuple[int, float, int], Choice] = {}
        self._above: dict[int, list[tuple[float, float]]] = {}
        self.plain = layers * self._layer[1] + self._head[1] + self._step
        """Seconds of a step of plain decoding."""

    def shadow_seconds(self, states: int) -> float:
        """Shadow tokens of that many states."""
        return self._latency.head_seconds(states) + self._latency.call

    def seconds(self, layer: int, head: float, drafts: float) -> float:
        """A round of ``drafts`` tokens drafted at ``layer`` with a head of ``head`` times the bytes.

        Layer 0 is a source that needs neither. Up to the exit layer one row remains to be verified, the
        newest draft's; above it, all of them and the token before.
        """
        rows = int(drafts)
        deep, one_more = self._verified(layer)[rows]
        below = drafts * self._drafted(layer, head) + layer * self._layer[1] + self._step
        return below + deep + (drafts - rows) * one_more

    def _drafted(self, layer: int, head: float) -> float:
        return layer * self._layer[1] + head * self._head[1] + self._turn if layer else 0.0

    def _verified(self, layer: int) -> list[tuple[float, float]]:
        """By drafts: layers above and the head for them and the token before; and for one draft more."""
        if layer not in self._above:
            deep, rows = self.layers - layer, range(1, LONGEST + 3)
            seconds = [deep * self._layer[count] + self._head[count] for count in rows]
            self._above[layer] = [(at, more - at) for at, more in pairwise(seconds)]
        return self._above[layer]

    def best(self, layer: int, head: float, rate: float) -> Choice:
        """The length at which drafts accepted at ``rate`` are worth most; at least 1."""
        key = (layer, head, round(rate * _STEPS))
        choice = self._best.get(key)
        if choice is None:
            choice = self._best[key] = self._search(layer, head, Acceptance(1.0, key[2] / _STEPS, 0.0))
        return choice

    def best_stopped(self, layer: int, head: float, rates: Acceptance) -> Choice:
        """The same where drafting stops after a draft that is not sure."""
        return self._search(layer, head, rates)

    def _search(self, layer: int, head: float, rates: Acceptance) -> Choice:
        """All lengths: where more rows cost a step at once, the value may rise again after it has fallen."""
        sure, kept = rates.sure, rates.sure * rates.rate_sure
        first = kept + (1 - sure) * rates.rate_unsure
        each, above = self._drafted(layer, head), self._verified(layer)
        below = layer * self._layer[1] + self._step
        drafts = accepted = 0.0
        made = right = 1.0  # whether the next draft is made; and made, with all before it right
        best, most = 1, 0.0
        for length in range(1, LONGEST + 1):
            drafts += made
            accepted += right * first
            rows = int(drafts)
            deep, one_more = above[rows]
            tokens_a_second = (1 + accepted) / (below + drafts * each + deep + (drafts - rows) * one_more)
            if tokens_a_second > most:
                best, most = length, tokens_a_second
            made *= sure
            right *= kept
        return Choice(best, most * self.plain)
