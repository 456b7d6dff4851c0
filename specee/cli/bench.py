"""``specee bench``: measure this installation on this machine, and write a report."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from specee import env
from specee.errors import BackendUnavailableError

JSON_FILE, HTML_FILE = "bench.json", "report.html"


def run(options: argparse.Namespace) -> int:
    """Run the command; returns the exit code: 1 if a part failed."""
    from specee.bench.report import document

    folder: Path = options.out
    without_plots = _missing_plots()
    if without_plots:
        print(f"specee bench: {without_plots}", file=sys.stderr)
    if options.recorded is not None:
        report = document.load(options.recorded)
    else:
        report = _measure(options, folder / JSON_FILE)
        print(f"wrote {folder / JSON_FILE}", file=sys.stderr)
    _print(report)
    if not without_plots:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / HTML_FILE).write_text(document.as_html(report), encoding="utf-8")
        print(f"wrote {folder / HTML_FILE}", file=sys.stderr)
    return 1 if any("error" in part for part in report.parts.values()) else 0


def _measure(options: argparse.Namespace, output: Path) -> Any:
    from specee.bench import suite

    settings = suite.Settings(
        threads=env.resolve_threads(options.threads),
        model=options.model,
        prompts=tuple(options.prompts or ()),
        contenders=tuple(options.contender) if options.contender else None,
        quick=options.quick,
        device=options.device,
    )
    return suite.run(settings, suite.parts_of(options.device, options.part), output)


def _missing_plots() -> str | None:
    """Why there will be no HTML; said before minutes of measuring, not after."""
    from specee.bench.report import document

    try:
        document.check_plots()
    except BackendUnavailableError as error:
        return str(error)
    return None


def _print(report: Any) -> None:
    from specee.bench.report import document, tables

    print("\n\n".join(tables.as_text(table) for table in report.tables()))
    for name, part in report.parts.items():
        if why := document.reason(part):
            print(f"\n{name} {why}")
