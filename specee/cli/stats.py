"""``--stats``: what a generation drafted, what was accepted, and where the time went, as lines of text."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

from specee.cli.labels import SHARES, source_label
from specee.cli.sparkline import plain, sparkline
from specee.engine.statistics import Counts, Statistics
from specee.policies import DraftCost, DraftSource, ExitLayer, Round

Cost = Callable[[DraftSource], DraftCost]

_BAR = 40  # characters of the longest bar


def print_statistics(statistics: Statistics, cost: Cost) -> None:
    """On stderr, beside the speed; in digits where the terminal has no block characters."""
    for line in statistics_lines(statistics, cost):
        try:
            line.encode(sys.stderr.encoding or "utf-8")
        except UnicodeEncodeError:
            line = plain(line)  # noqa: PLW2901
        print(line, file=sys.stderr)


def statistics_lines(statistics: Statistics, cost: Cost) -> list[str]:
    """All tables; no lines if there was no step. ``cost`` says what a draft of a source costs."""
    if not statistics.steps:
        return []
    lines = [*_steps(statistics), *_drafts(statistics, cost), *_exits(statistics)]
    return lines + [line for table in (_histogram, _over_time, _shares) for line in table(statistics)]


def _steps(statistics: Statistics) -> Iterator[str]:
    sequences = len({entry.sequence for entry in statistics.rounds()})
    of = f" of {sequences} sequences" if sequences > 1 else ""
    later = len(statistics.steps) - 1
    speed = f", {statistics.tokens_per_round:.2f} tokens a round" if later else ""
    yield f"steps   the prompt's and {later} more{of}{speed}"


def _drafts(statistics: Statistics, cost: Cost) -> Iterator[str]:
    whole = statistics.acceptance
    if not whole.drafted:
        yield "drafts  none"
        return
    width = max(len(source_label(source)) for source in statistics.by_source)
    yield f"drafts  {_accepted(whole)}"
    for source, share in statistics.by_source.items():
        yield f"        {source_label(source):<{width}}  {_accepted(share)}, each for {_price(cost(source))}"


def _exits(statistics: Statistics) -> Iterator[str]:
    """Where rows left by predictors."""
    counts = statistics.exit_layers
    if counts:
        mean = sum(layer * count for layer, count in counts.items()) / sum(counts.values())
        yield f"exits   at layer {mean:.1f} in the mean, {min(counts)} to {max(counts)}"


def _price(cost: DraftCost) -> str:
    return f"{cost.layers} layers and {cost.head:.2f} heads" if any(cost) else "nothing"


def _accepted(share: Counts) -> str:
    return f"{share.drafted} tokens, {share.accepted} accepted ({share.rate:.1%})"


def _histogram(statistics: Statistics) -> Iterator[str]:
    """Of the rounds that drafted."""
    counts = statistics.accepted_histogram
    most = max(counts.values(), default=0)
    for index, (accepted, count) in enumerate(counts.items()):
        title = "rounds" if index == 0 else ""
        bar = "#" * -(-count * _BAR // most)  # a single round is seen beside thousands
        yield f"{title:<8}{accepted:>2} accepted {count:>5} {bar}".rstrip()


def _over_time(statistics: Statistics) -> Iterator[str]:
    """Exit layer, tokens drafted and drafts kept, step by step after the prompt's."""
    if not statistics.acceptance.drafted:
        return
    for title, value in (("layers", _layer), ("drafted", _drafted), ("kept", _kept)):
        if line := sparkline([_mean(step, value) for step in statistics.steps[1:]]):
            yield f"{title:<8}{line}"


def _mean(step: tuple[Round, ...], value: Callable[[Round], int | None]) -> float | None:
    known = [number for entry in step if (number := value(entry)) is not None]
    return sum(known) / len(known) if known else None


def _layer(entry: Round) -> int | None:
    return entry.source.layer if isinstance(entry.source, ExitLayer) and entry.drafted else None


def _drafted(entry: Round) -> int:
    return entry.drafted


def _kept(entry: Round) -> int | None:
    return entry.accepted if entry.drafted else None


def _shares(statistics: Statistics) -> Iterator[str]:
    if shares := statistics.shares:
        parts = ", ".join(f"{SHARES[name]} {share:.1%}" for name, share in shares.items())
        yield f"time    {parts} of {statistics.seconds:.2f} s after the prompt"
