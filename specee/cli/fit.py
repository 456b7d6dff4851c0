"""``specee fit``: a speculator file for a model, from nothing but the model."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from specee.cli.common import load_model
from specee.cli.output_file import check_writable
from specee.errors import ConfigurationError
from specee.fitting.entry import default_work, fit, import_eagle

if TYPE_CHECKING:
    from specee.fitting.adapter_report import LayerReport
    from specee.fitting.plan import Report

# Options that say how to fit, None unless they are given: what fit() takes by the same names.
_CHOICES = (
    "tokens",
    "epochs",
    "seed",
    "corpus",
    "snapshots",
    "base",
    "warm_start",
    "adapters",
    "generations",
    "minutes",
    "memory",
    "plot",
)
_PERIOD = 10.0  # seconds between lines about the same stage


def run(options: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    if options.imported is not None:
        _check_import(options)
    check_writable(options.output, "--output")
    model = load_model(options)
    if options.imported is not None:
        import_eagle(model, options.imported, options.output)
        print(f"wrote {options.output} ({options.output.stat().st_size / 1e6:.1f} MB)")
        return 0
    work: Path = options.work or default_work(options.output)
    print(
        f"work in {work}: what is there already is used, and a run that was stopped goes on", file=sys.stderr
    )
    try:
        report = fit(
            model,
            options.output,
            **{name: given for name in _CHOICES if (given := getattr(options, name)) is not None},
            work=work,
            tell=Progress(),
        )
    except OSError as error:
        raise ConfigurationError(
            f"--work {work} or --output {options.output}: cannot be written ({error}); give names in folders "
            "that you may write to, on a disk with room"
        ) from error
    print_report(report, options.output)
    return 0


def _check_import(options: argparse.Namespace) -> None:
    """Raise ConfigurationError for options that say how to fit, where nothing is fitted."""
    for name in (*_CHOICES, "work"):
        if (given := getattr(options, name)) is not None:
            option = f"--{'no-' if given is False else ''}{name.replace('_', '-')}"
            option += "" if isinstance(given, bool) else f" {given}"
            raise ConfigurationError(
                f"{option} with --import {options.imported}: nothing is fitted, so it does nothing; "
                f"leave it out, or import first and then fit with --base {options.output}"
            )


def print_report(report: Report, output: Path) -> None:
    """What came of it."""
    chain = ", ".join(f"{share:.0%}" for share in report.agreement)
    print(f"wrote {output} ({output.stat().st_size / 1e6:.1f} MB) in {report.seconds / 60:.1f} minutes")
    print(f"texts       {report.texts}, {report.tokens} tokens to fit on")
    print(f"vocabulary  {report.vocabulary} tokens, which cover {report.coverage:.1%} of texts held out")
    print(f"drafter     reads layers {', '.join(map(str, report.layers))}")
    print(f"agreement   {chain} of the first, second, ... draft of a chain, on texts held out")
    for stage, (done, total) in report.cut_short.items():
        print(f"cut short   {stage}: {done} of {total}, for want of time")
    for one in report.adapters:
        print(_said_of(one))
    if report.exits is not None:
        rate, layer, right = report.exits.exit_rate, report.exits.layer, report.exits.agreement
        print(
            f"exits       {rate:.0%} leave early, {right:.1%} of them right; at layer {layer:.1f} in the mean"
        )
    if report.losses_by_threshold:
        each = ", ".join(f"{loss:.3f} at {at}" for at, loss in report.losses_by_threshold.items())
        print(f"calibrated  share of tokens that differ in approximate decoding: {each}")


def _said_of(one: LayerReport) -> str:
    """Of an exit layer, and what chains drafted there are expected to bring."""
    width = max(one.adapted, key=lambda width: one.adapted[width].speed) if one.kept is None else one.kept
    head, without = one.adapted[width], max(one.own, one.trimmed, key=lambda head: head.speed)
    return (
        f"layer {one.layer:<5d} {one.own.agreement:.0%} right with the model's head, "
        f"{one.trimmed.agreement:.0%} with the draft vocabulary's, {head.agreement:.0%} behind an adapter of "
        f"width {width}; {without.speed:.2f}x plain decoding without, {head.speed:.2f}x with it: "
        f"{'does not pay' if one.kept is None else 'kept'}"
    )


class Progress:
    """A line now and then, with the time that is left."""

    def __init__(self) -> None:
        self._stage, self._begin, self._first, self._told = "", 0.0, 0, 0.0

    def __call__(self, stage: str, done: int, total: int) -> None:
        """See :data:`specee.fitting.plan.Tell`."""
        now = time.monotonic()
        if stage != self._stage:
            self._stage, self._begin, self._first, self._told = stage, now, done, 0.0
        if now - self._told < _PERIOD and done < total:
            return
        self._told = now
        made = done - self._first
        left = f", {(now - self._begin) / made * (total - done) / 60:.0f} minutes left" if made else ""
        print(f"{stage}: {done} of {total}{left}", file=sys.stderr)
