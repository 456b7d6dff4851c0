"""The project's files, and builds of copies of them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD_INPUTS = (
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "MANIFEST.in",
    "README.md",
    "bench",
    "csrc",
    "pyproject.toml",
    "setup.py",
    "specee",
    "triton_kernels",
)


def written_version() -> str:
    """The version that the source tree says it is."""
    namespace: dict[str, str] = {}
    exec((ROOT / "specee" / "_version.py").read_text(), namespace)
    return namespace["__version__"]


def copy_project(target: Path) -> Path:
    """Copy what a build reads, and nothing that an earlier build left."""
    leftovers = shutil.ignore_patterns("__pycache__", "*.so", "*.o")
    target.mkdir(parents=True)
    for name in BUILD_INPUTS:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=leftovers)
        else:
            shutil.copy(source, target / name)
    return target


def run(
    *command: str | os.PathLike[str], cwd: Path, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command without this process's Python path; stdout and stderr come back as one text."""
    base = {key: value for key, value in os.environ.items() if key not in {"PYTHONPATH", "SPECEE_FORCE_ISA"}}
    return subprocess.run(
        [os.fspath(part) for part in command],
        cwd=cwd,
        env=base | (env or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def build(
    kind: str, tree: Path, out: Path, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Build ``"sdist"`` or ``"wheel"`` of ``tree`` into ``out`` with the build tools of this environment."""
    command = (sys.executable, "-m", "build", f"--{kind}", "--no-isolation", "--outdir", out, ".")
    return run(*command, cwd=tree, env=env)
