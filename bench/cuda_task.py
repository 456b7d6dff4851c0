"""What measurements on a device have in common: where results go, and how they say that they cannot run."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
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


def finish(options: argparse.Namespace, measure: Callable[[], dict[str, Any]]) -> int:
    """Measure, and save if asked to; the exit code, 2 where there is nothing to measure on."""
    try:
        result = measure()
    except SpeceeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")
    if options.save:
        print(machine.save(options.save, result))
    return 0
