"""What a result was measured on, so that a figure can be read later."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("specee", "numpy", "gguf", "torch", "transformers", "llama-cpp-python")


def describe(packages: tuple[str, ...] = PACKAGES) -> dict[str, Any]:
    """Date, processor, memory, versions and commit."""
    return {
        "date": datetime.date.today().isoformat(),
        "processor": _processor(),
        "instruction_set": instruction_set(),
        "memory_gb": _memory_gb(),
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
    return f"{model or platform.machine()}, {len(cores) or os.cpu_count() or '?'} logical cores"


def instruction_set() -> str | None:
    """That of the native engine, None without it."""
    try:
        from specee import _cpu, env
    except ImportError:
        return None
    return _cpu.select_isa(env.force_isa())


def _memory_gb() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
    except (ValueError, OSError, AttributeError):
        return None


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit(folder: Path = Path(__file__).parent) -> str | None:
    """Commit of the checkout that ``folder`` is ``bench/`` of; None when it was installed.

    A virtual environment may lie in the checkout of something else, whose commit says nothing.
    """
    if _git(folder, "rev-parse", "--show-prefix") != "bench/":
        return None
    return _git(folder, "describe", "--always", "--dirty")


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        command = ["git", "-C", str(folder), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() or None
