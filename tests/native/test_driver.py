"""The native driver fails when what it tests is wrong (that it passes is scripts/native.py's own run)."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RIGHT = "out += weight * value;"


@pytest.mark.slow
def test_a_wrong_result_is_noticed_and_its_seed_printed(tmp_path: Path) -> None:
    for folder in ("csrc", "scripts", "tests/native"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    reference = tmp_path / "tests" / "native" / "reference.h"
    text = reference.read_text()
    assert text.count(RIGHT) == 1
    reference.write_text(text.replace(RIGHT, RIGHT.replace("+=", "-=")))
    command = [sys.executable, tmp_path / "scripts" / "native.py", "none", "--rounds", "1", "--seed", "5"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "portable attention, seed 5" in done.stdout
