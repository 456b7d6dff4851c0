"""Under `scripts/test` the suite must meet the installed package, never the source tree beside it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import specee
from tests.packaging.project import ROOT

pytestmark = pytest.mark.skipif(
    os.environ.get("SPECEE_TEST_INSTALLED") != "1", reason="only when an installed package is under test"
)


def assert_installed(file: str) -> None:
    """Fail unless ``file`` is a package's ``__init__.py`` in a site-packages folder outside the tree."""
    path = Path(file).resolve()
    assert path.parent.parent.name == "site-packages", path
    assert path.parent != ROOT / "specee"


def test_this_process_imports_the_installed_package() -> None:
    assert specee.__file__ is not None
    assert_installed(specee.__file__)
    assert str(ROOT) not in sys.path


def test_child_processes_import_the_installed_package() -> None:
    code = "import specee; print(specee.__file__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert_installed(done.stdout.strip())
