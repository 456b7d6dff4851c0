"""A virtual environment that holds a wheel and its core requirements only, made without network.

The requirements are links to the copies installed beside the tests; whatever is not in the closure of
the wheel's own ``Requires-Dist`` lines (torch, transformers, ...) cannot be imported there.
"""

from __future__ import annotations

import email.parser
import sys
import venv
import zipfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from tests.packaging.project import run


@dataclass(frozen=True)
class CleanEnv:
    """A virtual environment and an empty folder to run it from."""

    bin: Path
    site: Path
    cwd: Path


def wheel_requirements(wheel: Path) -> list[str]:
    """The ``Requires-Dist`` lines of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [n for n in archive.namelist() if n.endswith(".dist-info/METADATA")]
        message = email.parser.Parser().parsestr(archive.read(name).decode())
    return message.get_all("Requires-Dist") or []


def closure(
    requirements: list[str], extras: frozenset[str] = frozenset()
) -> dict[str, metadata.Distribution]:
    """Installed distributions that the requirements need, directly or not, by name."""
    found: dict[str, metadata.Distribution] = {}
    queue = [(Requirement(line), extras) for line in requirements]
    seen: set[tuple[str, frozenset[str]]] = set()
    while queue:
        requirement, wanted_by = queue.pop()
        marker = requirement.marker
        if marker and not any(marker.evaluate({"extra": extra}) for extra in wanted_by | {""}):
            continue
        key = (requirement.name.lower().replace("_", "-"), frozenset(requirement.extras))
        if key in seen:
            continue
        seen.add(key)
        found[key[0]] = metadata.distribution(requirement.name)
        queue += [(Requirement(line), key[1]) for line in found[key[0]].requires or []]
    return found


def link_distribution(distribution: metadata.Distribution, site: Path) -> None:
    """Make one installed distribution importable from ``site``."""
    tops = {file.parts[0] for file in distribution.files or []} - {"..", "__pycache__"}
    for top in tops:
        source, target = Path(str(distribution.locate_file(top))), site / top
        if source.exists() and not target.exists():
            target.symlink_to(source)


def make_clean_env(wheel: Path, base: Path) -> CleanEnv:
    """Make the environment under ``base``."""
    folder = base / "env"
    venv.create(folder, with_pip=False, symlinks=True)
    (site,) = folder.glob("lib/python*/site-packages")
    for distribution in closure(wheel_requirements(wheel)).values():
        link_distribution(distribution, site)
    python = folder / "bin" / "python"
    install = ("install", "--quiet", "--no-deps", "--no-index", "--no-compile", wheel)
    installed = run(sys.executable, "-m", "pip", "--python", python, *install, cwd=base)
    assert installed.returncode == 0, installed.stdout
    cwd = base / "empty"
    cwd.mkdir()
    return CleanEnv(folder / "bin", site, cwd)
