"""What measurements on a device have in common: where results go, and how they say that they cannot run."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from specee.errors import SpeceeError

from . import machine


def parser(doc: str | None) -> argparse.ArgumentParser:
    """Their options."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--save", metavar="NAME", help="write bench/results/NAME.json")
    made.add_argument("--out", type=Path, help="write FILE, without a description of the machine")
    return made


class Report(dict[str, Any]):
    """Figures as they come: a measurement that fails has its error in their place, and the others go on.

    ``out``: the file that has all there is so far, if there is to be one. ``failed``: how many did.
    """

    def __init__(self, out: Path | None = None) -> None:
        super().__init__()
        self._out, self.failed = out, 0

    def measure(self, group: str, name: str, call: Callable[[], Any], line: Callable[[Any], str]) -> None:
        """``call`` gives the figures, and ``line`` says them."""
        self.attempt(group, name, lambda: self._store(group, name, call(), line))

    def measure_all(
        self,
        group: str,
        what: str,
        cases: Iterable[tuple[str, Callable[[], object]]],
        measure: Callable[[Callable[[], object]], Any],
        line: Callable[[Any], str],
    ) -> None:
        """The same of each case; ``what`` they are, where they cannot be had at all."""

        def every() -> None:
            for name, call in cases:
                self.measure(group, name, lambda call=call: measure(call), line)  # type: ignore[misc]

        self.attempt(group, what, every)

    def attempt(self, group: str, name: str, call: Callable[[], None]) -> None:
        """What measures more than once."""
        try:
            call()
        except (SpeceeError, RuntimeError) as error:  # torch's are among the latter
            self.failed += 1
            self.setdefault(group, {})[name] = {"error": f"{type(error).__name__}: {error}"}
            print(f"{name:<52} failed: {error}", flush=True)
        if self._out:
            fresh = self._out.with_suffix(".part")  # whole or not at all, whenever the time is up
            fresh.write_text(json.dumps(self, indent=1) + "\n")
            fresh.replace(self._out)

    def _store(self, group: str, name: str, found: Any, line: Callable[[Any], str]) -> None:
        self.setdefault(group, {})[name] = found
        print(f"{name:<52} {line(found)}", flush=True)


def milliseconds(found: dict[str, float]) -> str:
    """A median in words."""
    return f"{found['median']:9.3f} ms"


def finish(options: argparse.Namespace, measure: Callable[[Report], None]) -> int:
    """Measure, and save if asked to.

    The exit code is 2 where there is nothing to measure on, and 1 where some measurements failed.
    """
    report = Report(options.out)
    try:
        measure(report)
    except SpeceeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if options.out:
        options.out.write_text(json.dumps(report, indent=1) + "\n")
    if options.save:
        print(machine.save(options.save, report))
    return 1 if report.failed else 0
