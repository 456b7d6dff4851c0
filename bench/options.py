"""Arguments that the measurements have in common, and what they do with a result."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from specee import env

from . import machine
from .report import tables


def parser(doc: str | None, *, prompts: bool = False) -> argparse.ArgumentParser:
    """A parser with --model, --threads and --save, and --prompts where they are used."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--model", default=None, help="folder, GGUF file or hub id")
    made.add_argument("--threads", type=int, default=None, help="default: physical cores")
    made.add_argument("--save", metavar="NAME", help="write bench/results/NAME.json")
    made.add_argument("--out", type=Path, help="write FILE, without a description of the machine")
    if prompts:
        made.add_argument("--prompts", type=Path, action="append", help="JSON lines; may be given again")
    return made


def parse(made: argparse.ArgumentParser, arguments: list[str] | None = None) -> argparse.Namespace:
    """The options, with the number of threads resolved."""
    options = made.parse_args(arguments)
    options.threads = env.resolve_threads(options.threads)
    return options


def finish(options: argparse.Namespace, kind: str, result: dict[str, Any]) -> None:
    """Print the tables of a result, and save it if asked to."""
    print("\n\n".join(tables.as_text(table) for table in tables.of(kind, result)))
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")
    if options.save:
        print("saved", machine.save(options.save, result))
