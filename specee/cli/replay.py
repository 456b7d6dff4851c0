"""``specee replay``: policies over recorded texts, in seconds and without a model."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator, Sequence

from specee.errors import ConfigurationError
from specee.policies import DraftSource, ExitLayer, make_policy
from specee.replay import (
    Recovery,
    Replay,
    Spliced,
    Statics,
    Trace,
    followed,
    read_trace,
    recoveries,
    replay,
    splice,
)
from specee.replay.splice import GOOD, SOON

_WIDTH = 44


def run(options: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    for policy in options.policy:
        make_policy(policy)  # a wrong name is told of before anything is read
    traces = [read_trace(path) for path in options.traces]
    spliced = _spliced(traces, options.at) if options.splice else None
    for trace in [spliced.trace] if spliced else traces:
        runs = [replay(policy, trace) for policy in options.policy]
        for line in lines(trace, runs):
            print(line)
        if options.rounds:
            for policy in runs:
                for line in round_lines(policy):
                    print(line)
        if options.sweep:
            for line in sweep_lines(trace):
                print(line)
        if spliced:
            for policy in runs:
                print(recovery_line(policy, recoveries(policy, spliced)))
    return 0


def _spliced(traces: Sequence[Trace], at: int | None) -> Spliced:
    """In the middle of the first trace's shortest text, if nothing is said."""
    if len(traces) != 2:
        raise ConfigurationError(f"--splice with {len(traces)} traces: give two, what comes first and second")
    first, second = traces
    if at is None:
        at = max(1, min(text.generated for text in first.texts) // 2)
    return splice(first, second, at)


def lines(trace: Trace, runs: Sequence[Replay]) -> Iterator[str]:
    """A heading, and one line a policy."""
    yield f"{trace.name}: {len(trace.texts)} texts, {trace.generated} tokens, {trace.layers} layers"
    yield (
        f"{'policy':<{_WIDTH}}{'over plain':>12}{'drafting':>10}{'accepted':>10}{'a round':>9}"
        f"{'in shadow':>11}{'us a round':>11}{'a plan':>8}{'90 %':>7}  drafted by"
    )
    for run in runs:
        round_us, plan_us, most_us = (1e6 * seconds for seconds in (run.deciding, *run.replanning))
        yield (
            f"{run.policy:<{_WIDTH}}{run.ratio:>12.3f}{run.drafting_share:>10.1%}{run.acceptance:>10.1%}"
            f"{run.accepted_each:>9.2f}{run.shadow_share:>11.2%}{round_us:>11.1f}{plan_us:>8.1f}{most_us:>7.1f}"
            f"  {_sources(run)}"
        )


def round_lines(run: Replay) -> Iterator[str]:
    """A heading, and a line a round."""
    yield f"{run.policy}, round by round"
    yield f"{'text':>4}{'length':>8}  {'drafted by':<12}{'drafted':>8}{'accepted':>10}{'ms':>9}  looked at"
    for index, text in enumerate(run.texts):
        for entry in text:
            shown = entry.outcome.shadows
            looked = ", ".join(f"{one.layer}: {sum(one.matches)} of {len(one.matches)}" for one in shown)
            counts = f"{entry.round.drafted:>8}{entry.round.accepted:>10}{1e3 * entry.seconds:>9.3f}"
            yield f"{index:>4}{entry.length:>8}  {_named(entry.round.source):<12}{counts}  {looked}".rstrip()


def sweep_lines(trace: Trace) -> Iterator[str]:
    """The best, the median and the worst static setting."""
    sweep = Statics(trace).sweep()
    for title, static in (("best", sweep[0]), ("median", sweep[len(sweep) // 2]), ("worst", sweep[-1])):
        setting = f"layer {static.layer}, {static.length} drafts" if static.layer else "plain decoding"
        yield f"{f'{title} static: {setting}':<{_WIDTH}}{static.ratio:>12.3f}"


def recovery_line(run: Replay, found: Sequence[Recovery]) -> str:
    """How soon a policy's plans were good after the splice, and how many of its later ones are.

    A text that was over within ``SOON`` rounds says nothing by not getting there.
    """
    sums = followed(found)
    reached = sums.reached
    soon = f"median {statistics.median(reached):.0f}, worst {reached[-1]}" if reached else "none"
    never = f", {sums.never} never" if sums.never and reached else ""
    never += f", {sums.short} over too soon to tell" if sums.short else ""
    good = [value >= GOOD for value in sums.later]
    later = f"{statistics.mean(good):.1%}" if good else "none left"
    return (
        f"{run.policy}: {GOOD:.0%} of the new best after rounds: {soon}{never}; "
        f"of the rounds from {SOON} on: {later}"
    )


def _sources(run: Replay) -> str:
    """The sources of most rounds."""
    return ", ".join(f"{_named(source)} {count}" for source, count in run.sources.most_common(4))


def _named(source: DraftSource | None) -> str:
    if source is None:
        return "none"
    return f"layer {source.layer}" if isinstance(source, ExitLayer) else "copies"
