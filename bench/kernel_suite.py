"""Runs ``kernels/`` with pytest-benchmark in a process of its own and keeps of its JSON what a report needs.

Of each benchmark that is ``extra_info``, which ``kernels/record.py`` fills.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from specee.errors import BackendUnavailableError, SpeceeError

from . import options as common

KERNELS = Path(__file__).parent / "kernels"
_NEEDED = ("pytest", "pytest_benchmark", "torch")


class KernelSuiteError(SpeceeError, RuntimeError):
    """The kernel benchmarks failed."""


def check() -> None:
    """Raise BackendUnavailableError if what the suite needs is not installed."""
    if lacking := [name for name in _NEEDED if importlib.util.find_spec(name) is None]:
        raise BackendUnavailableError(
            f'the kernel benchmarks need {" and ".join(lacking)}: pip install "specee[bench,hf]"'
        )


def command(output: Path, *, threads: int, quick: bool) -> list[str]:
    """The pytest command line; configuration files around the current folder are not for this suite."""
    return [
        sys.executable, "-m", "pytest", str(KERNELS), "-c", os.devnull, "--rootdir", str(KERNELS),
        f"--ignore={KERNELS / 'triton'}", "--import-mode=importlib", "-p", "no:cacheprovider", "-q",
        f"--benchmark-json={output}", f"--threads={threads}",
        *(["--quick"] if quick else []),
    ]  # fmt: skip


def measure(*, threads: int, quick: bool = False) -> dict[str, Any]:
    """Run all benchmarks. Raises BackendUnavailableError, KernelSuiteError with pytest's last words."""
    check()
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "kernels.json"
        done = subprocess.run(
            command(output, threads=threads, quick=quick),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode != 0 or not output.is_file():
            raise KernelSuiteError(f"pytest ended with code {done.returncode}: {done.stdout.strip()[-1500:]}")
        return condensed(json.loads(output.read_text()), threads)


def condensed(recorded: dict[str, Any], threads: int) -> dict[str, Any]:
    """The record of every benchmark, in as few digits as there is meaning."""
    kernels = [rounded(found["extra_info"]) for found in recorded["benchmarks"]]
    return {"what": "single operations", "threads": threads, "kernels": kernels}


def rounded(value: Any) -> Any:
    """Every float inside with four significant digits; those that are whole numbers as they are."""
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [rounded(inner) for inner in value]
    return float(f"{value:.4g}") if isinstance(value, float) and not value.is_integer() else value


def main() -> None:
    """Run and save."""
    parser = common.parser(__doc__)
    parser.add_argument("--quick", action="store_true", help="a small selection, about a minute")
    options = common.parse(parser)
    try:
        result = measure(threads=options.threads, quick=options.quick)
    except SpeceeError as error:
        sys.exit(f"error: {error}")
    common.finish(options, "kernels", result)


if __name__ == "__main__":
    main()
