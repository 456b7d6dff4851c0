"""What measurements on planted models have in common: their options, and a folder for the files."""

from __future__ import annotations

import argparse
import contextlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from .. import options as common
from . import contest_task, planted_models
from .contest_task import Task

KS = (6, 12, 20)


class Measure(Protocol):
    """A measurement: ``policies`` on the models of ``ks``, planted in the folder ``work`` with ``factor``."""

    def __call__(
        self, task: Task, *, work: Path, ks: Sequence[int], policies: Sequence[str], factor: float
    ) -> dict[str, Any]: ...


def main(
    doc: str | None,
    kind: str,
    policies: Sequence[str],
    measure: Measure,
    ks: Sequence[int] = KS,
    finish: Callable[[argparse.Namespace, str, dict[str, Any]], None] = contest_task.finish,
) -> None:
    """Run as the command line says, show and save."""
    parser = contest_task.parser(doc, policies)
    add_options(parser, ks)
    options = common.parse(parser)
    with folder(options.work) as work:
        result = measure(
            contest_task.task(options),
            work=work,
            ks=list(dict.fromkeys(options.k or ks)),
            policies=list(dict.fromkeys(options.policy or policies)),
            factor=options.factor,
        )
    finish(options, kind, result)


def add_options(parser: argparse.ArgumentParser, ks: Sequence[int] = KS) -> None:
    """Which models are planted, and where."""
    again = "may be given again; default: "
    parser.add_argument("--k", type=int, action="append", help=again + " ".join(map(str, ks)))
    parser.add_argument("--factor", type=float, default=planted_models.FACTOR, help="default: 2^-9")
    parser.add_argument("--work", type=Path, help="folder for the planted models; default: a temporary one")


@contextlib.contextmanager
def folder(given: Path | None) -> Iterator[Path]:
    """``given``, or a temporary one."""
    if given is not None:
        yield given
        return
    with tempfile.TemporaryDirectory(prefix="planted-") as made:
        yield Path(made)
