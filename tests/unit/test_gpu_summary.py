"""What a round on a GPU leaves behind."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from specee.bench import gpu_summary
from tests.packaging.project import ROOT

JUNIT = """<testsuites><testsuite tests="3">
<testcase classname="tests.triton.test_a" name="test_fine"/>
<testcase classname="tests.triton.test_a" name="test_left"><skipped message="no device"/></testcase>
<testcase classname="tests.triton.test_a" name="test_bad"><failure message="off by 2"/></testcase>
</testsuite></testsuites>"""


def test_a_round_is_summed_up(tmp_path: Path) -> None:
    (tmp_path / "tests.xml").write_text(JUNIT)
    (tmp_path / "triton_tests.xml").write_text(JUNIT[:40])
    (tmp_path / "rounds.json").write_text("")
    (tmp_path / "benches.json").write_text(json.dumps({"benchmarks": [{"extra_info": {"op": "swiglu"}}]}))
    found = gpu_summary.summary(tmp_path, ["build=0=12", "tests=1=40", "sanitizer=not installed=0"])
    assert [done["status"] for done in found["stages"]] == [0, 1, "not installed"]
    assert found["tests"]["tests"] == 3
    assert found["tests"]["skipped"] == [{"test": "tests.triton.test_a.test_left", "why": "no device"}]
    assert found["tests"]["failure"][0]["why"] == "off by 2"
    assert found["kernels"] == [{"op": "swiglu"}]
    assert "triton_tests.xml cannot be read" in found["triton_tests"]["error"], "it was cut off"
    assert "rounds.json cannot be read" in found["rounds"]["error"]


def test_what_a_stage_did_not_leave_is_missing(tmp_path: Path) -> None:
    assert set(gpu_summary.summary(tmp_path, ["build=0=120"])) == {"what", "stages", "logs"}


def test_one_file_has_it_all(tmp_path: Path) -> None:
    """Figures of all benches, and what those say that failed."""
    for name in gpu_summary.RESULTS:
        (tmp_path / f"{name}.json").write_text(json.dumps({"cases": {name: 1}}))
    for name in ("cuda-decode", "cuda-steps"):
        (tmp_path / f"{name}.log").write_text("x" * gpu_summary.TAIL + name)
    stages = ["cuda-decode=0=9", "cuda-steps=124=75", "benches=no time left=0", "decode=no model=0"]
    found = gpu_summary.summary(tmp_path, stages)
    assert [found[name] for name in gpu_summary.RESULTS] == [{"cases": {n: 1}} for n in gpu_summary.RESULTS]
    assert set(found["logs"]) == {"cuda-steps", "benches"}
    assert found["logs"]["cuda-steps"] == ("x" * gpu_summary.TAIL + "cuda-steps")[-gpu_summary.TAIL :]
    assert found["logs"]["benches"] == ""


def test_the_status_is_that_of_the_stages(tmp_path: Path) -> None:
    for stages, status in (
        (["build=0=1", "sanitizer=not installed=0"], 0),
        (["build=0=1", "tests=124=150"], 1),
        (["build=0=1", "tests=no time left=0"], 1),
        (["build=0=1", "decode=no model=0"], 0),
    ):
        done = subprocess.run(
            [sys.executable, str(ROOT / "bench" / "gpu_summary.py"), str(tmp_path), *stages], check=False
        )
        assert done.returncode == status
        assert (tmp_path / "gpu_round.json").is_file()


def test_without_a_gpu_the_round_says_so(tmp_path: Path) -> None:
    hidden = {"CUDA_VISIBLE_DEVICES": "", "PATH": "/usr/bin:/bin", "PYTHON": sys.executable}
    done = subprocess.run(
        ["bash", str(ROOT / "bench" / "gpu_round.sh"), str(tmp_path)],
        env=hidden,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "finds no GPU" in done.stderr


@pytest.mark.parametrize(
    ("seconds", "sleep", "first", "others"), [(6, 60, 124, "no time left"), (500, 0, 0, 0)]
)
def test_a_round_ends_when_its_time_is_up(
    tmp_path: Path, seconds: int, sleep: int, first: int, others: str | int
) -> None:
    """A stage that takes too long is cut off, and the summary has those that there was no time for."""
    python = tmp_path / "python"
    python.write_text(
        f"""#!/bin/bash
case "$*" in
    *gpu_summary*) exec {sys.executable} "$@" ;;
    -c*) exit 0 ;;
    *) exec sleep {sleep} ;;
esac
"""
    )
    python.chmod(0o755)
    names = {"PATH": "/usr/bin:/bin", "PYTHON": str(python), "SECONDS_IN_ALL": str(seconds)}
    subprocess.run(["bash", ROOT / "bench" / "gpu_round.sh", tmp_path / "out"], env=names, check=first == 0)
    stages = json.loads((tmp_path / "out" / "gpu_round.json").read_text())["stages"]
    assert stages[0]["stage"] == "build"
    assert stages[0]["status"] == first
    rest = [stage for stage in stages[1:] if stage["stage"] not in ("decode", "sanitizer")]
    assert {stage["status"] for stage in rest} == {others}
    assert [stage["stage"] for stage in rest][:2] == ["tests", "cuda-benches"]
    assert {"stage": "decode", "status": "no model", "seconds": 0} in stages
