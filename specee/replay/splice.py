"""Texts in which what layers know changes in the middle, and how soon a policy follows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from specee.errors import ConfigurationError
from specee.policies import Draft, ExitLayer, Latency, Speculate
from specee.replay.result import Replay, ReplayedRound
from specee.replay.statics import Static, Statics
from specee.replay.trace import Text, Trace

GOOD = 0.85
"""Of the best static setting: what a policy has to be worth."""
SOON = 20
"""Rounds in which a policy is to have followed a splice."""


@dataclass(frozen=True, eq=False)
class Spliced:
    """``trace``: its text i is one of ``before``'s up to ``lengths[i]`` tokens, then on as ``after``'s."""

    trace: Trace
    before: Trace
    after: Trace
    lengths: tuple[int, ...]


class Recovery(NamedTuple):
    """Of one text: what the plans of rounds after the splice are worth, over the ``best`` static setting."""

    values: tuple[float, ...]
    best: Static

    def reached(self, good: float = GOOD) -> int | None:
        """The first round, counted from 0, that is worth ``good``; None if there is none."""
        return next((index for index, value in enumerate(self.values) if value >= good), None)

    def settled(self, good: float = GOOD) -> int:
        """Rounds until all are worth ``good``."""
        return max((index + 1 for index, value in enumerate(self.values) if value < good), default=0)


class Followed(NamedTuple):
    """How soon a policy's plans were good after the splices of so many ``texts``.

    ``reached``: for each text that had a good plan, rounds before the first one, ascending. ``short``: those
    without one that were over within ``SOON`` rounds, and say nothing. ``later``: what plans were worth after
    ``SOON`` rounds, of all texts. ``plain``: texts in which to draft nothing is good too.
    """

    texts: int
    reached: tuple[int, ...]
    short: int
    later: tuple[float, ...]
    plain: int

    @property
    def soon(self) -> int:
        """Texts with a good plan within ``SOON`` rounds."""
        return sum(rounds <= SOON for rounds in self.reached)

    @property
    def never(self) -> int:
        """Texts without one, those aside that were over too soon to tell."""
        return self.texts - len(self.reached) - self.short


def followed(found: Sequence[Recovery]) -> Followed:
    """Sum up what :func:`recoveries` gives."""
    reached = [one.reached() for one in found]
    return Followed(
        len(found),
        tuple(sorted([rounds for rounds in reached if rounds is not None])),
        sum(one.reached() is None and len(one.values) <= SOON for one in found),
        tuple([value for one in found for value in one.values[SOON:]]),
        sum(one.best.ratio * GOOD <= 1 for one in found),
    )


def splice(first: Trace, second: Trace, at: int) -> Spliced:
    """``at`` generated tokens of each text of ``first``, then all generated ones of one of ``second``.

    Texts are paired in order; the traces may be the same. Prices are the first's. Raises ConfigurationError
    for models of different depth, and for an ``at`` beyond a text.
    """
    if first.layers != second.layers:
        raise ConfigurationError(
            f"traces of {first.layers} and {second.layers} layers: those spliced must have equally many"
        )
    count = min(len(first.texts), len(second.texts))
    most = min(text.generated for text in first.texts[:count])
    if not 1 <= at <= most:
        raise ConfigurationError(f"a splice after {at} generated tokens: allowed are 1..{most}")
    pairs = list(zip(first.texts, second.texts, strict=False))
    trace = Trace(
        f"{first.name} then {second.name}",
        first.layers,
        first.latency,
        tuple([_spliced(one, other, at) for one, other in pairs]),
    )
    after = Trace(second.name, second.layers, first.latency, second.texts[:count])
    return Spliced(trace, first, after, tuple([one.prompt + at for one, _ in pairs]))


def _spliced(first: Text, second: Text, at: int) -> Text:
    """The first's last position is not recorded: there the second one's answer begins."""
    length = first.prompt + at
    kept, begin = slice(0, length - 1 - first.first), second.prompt - 1 - second.first
    return Text(
        np.concatenate([first.tokens[:length], second.tokens[second.prompt :]]),
        first.prompt,
        np.concatenate([first.drafts[kept], second.drafts[begin:]]),
        np.concatenate([first.confidences[kept], second.confidences[begin:]]),
    )


def recoveries(run: Replay, spliced: Spliced, latency: Latency | None = None) -> list[Recovery]:
    """How a replay of ``spliced.trace`` follows, text by text.

    A plan is worth what its layer, length and threshold are worth as a static setting on all of the text that
    comes after the splice. A plan to copy is worth what it is otherwise. Plans that the end of the text cuts
    short do not count.
    """
    found = []
    for rounds, length, text in zip(run.texts, spliced.lengths, spliced.after.texts, strict=True):
        statics = Statics(replace(spliced.after, texts=(text,)), latency)
        best = statics.sweep()[0]
        later = [entry for entry in rounds if entry.length >= length]
        values = [_value(entry, statics) / best.ratio for entry in later if not _cut(entry)]
        found.append(Recovery(tuple(values), best))
    return found


def _exit(entry: ReplayedRound) -> Draft | None:
    draft = entry.plan.drafts[0] if isinstance(entry.plan, Speculate) else None
    while draft is not None and draft.length and not isinstance(draft.source, ExitLayer):
        draft = draft.otherwise
    return draft if draft is not None and draft.length else None


def _cut(entry: ReplayedRound) -> bool:
    draft = _exit(entry)
    return entry.remaining == 1 or (draft is not None and draft.length == entry.remaining - 1)


def _value(entry: ReplayedRound, statics: Statics) -> float:
    draft = _exit(entry)
    if draft is None:
        return 1.0
    assert isinstance(draft.source, ExitLayer)
    return statics.ratio(draft.source.layer, draft.length, draft.stop_below)
