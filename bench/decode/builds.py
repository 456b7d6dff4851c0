"""Builds of specee beside each other: what rows take with each, in one interleaved run.

    python -m bench.decode.builds FOLDER[:ISA] FOLDER[:ISA]... [--weights packed]... [--contexts 128]
                                  [--apart]

Each folder is a checkout whose extension was built in place (``python setup.py build_ext --inplace``), held
to an instruction set if one is named (the others to SPECEE_FORCE_ISA, if that is set); the first is what the
others are compared with. Every build has a process of its own; they take turns, in an order that turns round,
and ratios are taken turn by turn: on a shared machine minutes differ more than builds do.
Rows are a chain of one text, or with ``--apart`` of texts of their own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from .. import options as common
from ..progress import progress
from ..spread import ratio, spread
from .contenders import WEIGHTS

COUNTS = (1, 2, 3, 4, 6, 8, 16)
_SCRIPT = Path(__file__).with_name("build_rows.py")


class Source(NamedTuple):
    """Where a build is, and the instruction set that it is held to, if any."""

    folder: Path
    isa: str = ""

    @classmethod
    def of(cls, text: str) -> Source:
        """``FOLDER`` or ``FOLDER:ISA``."""
        folder, colon, isa = text.rpartition(":")
        return cls(Path(folder), isa) if colon and not Path(text).exists() else cls(Path(text))


class Build:
    """A process that imports the build in a folder. Raises RuntimeError where it does not get ready."""

    def __init__(self, source: Source, arguments: Sequence[str]) -> None:
        self._folder = folder = source.folder
        command = [sys.executable, "-c", _SCRIPT.read_text(), *arguments]
        environment = {**os.environ, "PYTHONPATH": str(folder.resolve())}
        if source.isa:
            environment["SPECEE_FORCE_ISA"] = source.isa
        self._process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.isa, self.commit = self._line(), _commit(folder)

    def __enter__(self) -> Build:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()

    def seconds(self) -> list[float]:
        """Of each row count, once."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return [float(word) for word in self._line().split()]

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            raise RuntimeError(
                f"the build in {self._folder} ended: its message is above; build it in place first"
            )
        return line.strip()


def compare(
    sources: Sequence[Source],
    weights: str,
    model: str | None,
    threads: int,
    context: int,
    repeats: int,
    *,
    apart: bool = False,
) -> dict[str, Any]:
    """Milliseconds of each build, and their ratio to the first one's."""
    texts = "apart" if apart else "together"
    arguments = [weights, model or "", str(threads), str(context), texts, *map(str, COUNTS)]
    taken: list[list[list[float]]] = [[] for _ in sources]
    with ExitStack() as stack:
        builds = [stack.enter_context(Build(source, arguments)) for source in sources]
        for turn in progress(range(repeats), "round"):
            order = range(len(builds)) if turn % 2 == 0 else reversed(range(len(builds)))
            for at in order:
                taken[at].append(builds[at].seconds())
    found = []
    for build, rounds in zip(builds, taken, strict=True):
        rows = {}
        for at, count in enumerate(COUNTS):
            mine = [one[at] for one in rounds]
            first = [one[at] for one in taken[0]]
            rows[str(count)] = {"ms": spread([1e3 * s for s in mine]), "ratio": ratio(mine, first)}
        found.append({"commit": build.commit, "isa": build.isa, "rows": rows})
    return {"weights": weights, "context": context, "rows": texts, "repeats": repeats, "builds": found}


def _commit(folder: Path) -> str | None:
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or None


def main() -> None:
    """Run and save."""
    parser = common.parser(__doc__)
    parser.add_argument("builds", type=Source.of, nargs="+", metavar="FOLDER[:ISA]")
    parser.add_argument(
        "--weights", action="append", choices=WEIGHTS, help="may be given again; default: auto"
    )
    parser.add_argument("--contexts", type=int, nargs="+", default=[128])
    parser.add_argument("--apart", action="store_true", help="each row of a text of its own")
    parser.add_argument("--repeats", type=int, default=60)
    options = common.parse(parser)
    found = [
        compare(
            options.builds,
            weights,
            options.model,
            options.threads,
            context,
            options.repeats,
            apart=options.apart,
        )
        for weights in options.weights or ["auto"]
        for context in options.contexts
    ]
    result = {"what": "cost of rows with several builds", "threads": options.threads, "compared": found}
    common.finish(options, "builds", result)


if __name__ == "__main__":
    main()
