"""What a draft plan is worth: expected tokens per second over those of plain decoding.

DEL (Entezari Zarch et al., "DEL: Context-aware dynamic exit layer for efficient self-speculative decoding",
2025) maximises expected tokens per layer, (1 - a^(d+1)) / (1 - a) / (L + d l) for the acceptance rate a of
exit layer l and speculation length d. Here layers are replaced by measured seconds, and the head counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, lru_cache
from itertools import pairwise
from operator import truediv
from typing import TYPE_CHECKING, NamedTuple

from specee.policies.latency import Latency

if TYPE_CHECKING:
    from specee._cpu import RoundCosts

LONGEST = 17
"""Most drafts a round, as in the paper."""
POSITIONS, LAYERS = 4, 4
"""Most positions and layers of one look: about as many states as pass a head cheaply."""
_MOST_KNOWN = 1024  # choices of one kind of rounds are remembered
_STEPS = 64  # shares and rates are told apart to 1/64: nobody knows them better


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

    @property
    def steps(self) -> tuple[int, int, int]:
        """In 64ths of all drafts: those that are sure, those of them that are accepted, all that are."""
        sure, rate_sure, rate_unsure = self
        kept = sure * rate_sure
        right = kept + (1 - sure) * rate_unsure
        return round(sure * _STEPS), round(kept * _STEPS), round(right * _STEPS)


def _sums(share: float) -> tuple[float, ...]:
    """1 + share + ... + share^(n-1) for n = 1 ... LONGEST."""
    sums, power = [1.0], 1.0
    for _ in range(LONGEST - 1):
        power *= share
        sums.append(sums[-1] + power)
    return tuple(sums)


# By 64ths: these sums; the same in whole drafts and parts of one; and what a round gives whose drafts are all
# of that rate. Worked out once: a plan compares dozens of rounds.
_SUMS = [_sums(step / _STEPS) for step in range(_STEPS + 1)]
_MADE = [tuple([(int(made), made % 1) for made in sums]) for sums in _SUMS]
_TOKENS = [tuple([1 + step / _STEPS * made for made in sums]) for step, sums in enumerate(_SUMS)]


class RoundTimes:
    """``seconds`` of rounds of 0, 1, ... drafts. ``best``: what was found to be worth most, by its rates."""

    __slots__ = ("_stopped", "best", "seconds")

    def __init__(self, seconds: Sequence[float]) -> None:
        self.seconds = seconds
        self._stopped: dict[int, list[float]] = {}
        self.best: dict[tuple[int, int, int], Choice] = {}

    def stopped(self, sure: int) -> list[float]:
        """Of rounds of 1, 2, ... drafts at most, of which ``sure`` 64ths go on to the next one."""
        found = self._stopped.get(sure)
        if found is None:
            steps = [more - at for at, more in pairwise(self.seconds)]
            found = [self.seconds[whole] + part * steps[whole] for whole, part in _MADE[sure]]
            self._stopped[sure] = found
        return found


class Objective:
    """Of one latency table, for ``sequences`` that step together and draft alike."""

    def __init__(self, latency: Latency, layers: int, sequences: int = 1) -> None:
        rows = range(0, sequences * (LONGEST + 1) + 1, sequences)
        self.layers = layers
        self.sequences = sequences
        self._layer, self._head = latency.columns(rows)
        self._step = latency.step + latency.call
        self._latency = latency
        self._best: dict[tuple[int, float, int], Choice] = {}
        self._rounds: dict[tuple[int, float], RoundTimes] = {}
        self.plain = layers * self._layer[1] + self._head[1] + self._step
        """Seconds of a step of plain decoding."""

    @cached_property
    def native(self) -> RoundCosts:
        """The same for exit layers in C++ (csrc/policy). Raises ImportError where it was not built."""
        from specee._cpu import RoundCosts  # a build without it can still decode with other policies

        looks = [self.shadow_seconds(POSITIONS * layers) for layers in range(LAYERS + 2)]
        return RoundCosts(self.layers, self.sequences, self._layer, self._head, self._step, looks)

    def shadow_seconds(self, states: int) -> float:
        """Shadow tokens of that many states."""
        return self._latency.head_seconds(states) + self._latency.call

    def seconds(self, layer: int, head: float, drafts: float) -> float:
        """A round of ``drafts`` tokens drafted at ``layer`` with a head of ``head`` times the bytes.

        Layer 0 is a source that needs neither, whatever ``head`` is. Up to the exit layer one row remains to
        be verified, the newest draft's; above it, all of them and the token before.
        """
        rounds, whole = self._whole(layer, head).seconds, int(drafts)
        if drafts == whole:
            return rounds[whole]
        return rounds[whole] + (drafts - whole) * (rounds[whole + 1] - rounds[whole])

    def _whole(self, layer: int, head: float) -> RoundTimes:
        """Of rounds of 0, 1, ... LONGEST drafts."""
        found = self._rounds.get((layer, head))
        if found is None:
            each = layer * self._layer[1] + head * self._head[1] if layer else 0.0
            below, deep = layer * self._layer[1] + self._step, self.layers - layer
            seconds = [
                below + drafts * each + deep * self._layer[drafts + 1] + self._head[drafts + 1]
                for drafts in range(LONGEST + 1)
            ]
            found = self._rounds[layer, head] = RoundTimes(seconds)
        return found

    def best(self, layer: int, head: float, rate: float) -> Choice:
        """The length at which drafts accepted at ``rate`` are worth most; at least 1."""
        key = (layer, head, round(rate * _STEPS))
        choice = self._best.get(key)
        if choice is None:
            choice = self._best[key] = self.most(_TOKENS[key[2]], self._whole(layer, head).seconds[1:])
        return choice

    def chain_times(self, first: float, each: float) -> RoundTimes:
        """Of rounds of 0, 1, ... LONGEST drafts that need no layer: ``first`` seconds, then ``each``."""
        copies = self._whole(0, 0.0).seconds
        chains = [first + drafts * each + more for drafts, more in enumerate(copies[1:])]
        return RoundTimes([copies[0], *chains])

    def best_of(self, rounds: RoundTimes, rates: Acceptance) -> Choice:
        """The length worth most, drafting stopping after a draft that is not sure."""
        steps = rates.steps
        choice = rounds.best.get(steps)
        if choice is None:
            if len(rounds.best) >= _MOST_KNOWN:
                rounds.best.clear()
            choice = rounds.best[steps] = self._best_of(rounds, *steps)
        return choice

    def _best_of(self, rounds: RoundTimes, sure: int, kept: int, right: int) -> Choice:
        if sure == _STEPS:
            return self.most(_TOKENS[kept], rounds.seconds[1:])
        first = right / _STEPS
        return self.most([1 + first * made for made in _SUMS[kept]], rounds.stopped(sure))

    def most(self, tokens: Sequence[float], seconds: Sequence[float]) -> Choice:
        """Of rounds of 1, 2, ... drafts that give so many tokens in so many seconds.

        All lengths: where more rows cost a step at once, the value may rise again after it has fallen.
        """
        values = list(map(truediv, tokens, seconds))
        most = max(values)
        return Choice(values.index(most) + 1, most * self.plain)


@lru_cache(maxsize=8)
def objective_of(latency: Latency, layers: int, sequences: int) -> Objective:
    """The same object for the same table: what one generation has worked out is there for the next."""
    return Objective(latency, layers, sequences)
