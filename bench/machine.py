"""What a result was measured on, so that a figure can be read later."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import platform
import subprocess
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def describe(packages: tuple[str, ...] = ("specee", "torch", "transformers", "numpy")) -> dict[str, Any]:
    """Date, processor, memory, versions and commit."""
    return {
        "date": datetime.date.today().isoformat(),
        "processor": _processor(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in packages},
        "commit": _commit(),
    }


def save(name: str, result: dict[str, Any], folder: Path = RESULTS) -> Path:
    """Write ``result`` with the machine's description as ``<name>.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps({"machine": describe(), **result}, indent=1) + "\n")
    return path


def _processor() -> str:
    model, cores = platform.processor(), set()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                model = value.strip()
            if key.strip() == "processor":
                cores.add(value.strip())
    except OSError:
        pass
    return f"{model}, {len(cores) or '?'} logical cores"


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return found.stdout.strip() or None
