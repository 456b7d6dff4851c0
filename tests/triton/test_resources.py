"""Kernels compile for GPUs that are not there, spill nothing, and take what the committed table says.

Compiling happens in a process of its own: this one may interpret, and Triton decides that once.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from specee.bench.kernels import triton_variants
from specee.bench.kernels.triton_resources import TARGETS
from tests.packaging.project import ROOT

TABLE = ROOT / "bench" / "results" / "triton_resources.json"
WORKER = Path(__file__).with_name("compile_worker.py")
# Bytes that a program may have, of the CUDA programming guide's table of compute capabilities.
MOST_SHARED = {"sm_80": 163 << 10, "sm_89": 99 << 10, "sm_90": 227 << 10}

Records = list[dict[str, Any]]


def compile_all(folder: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    return subprocess.run(
        [sys.executable, str(WORKER), *arguments, "--output", str(folder / "table.json")],
        cwd=folder,
        env=environment | settings,
        capture_output=True,
        text=True,
        check=False,
    )


def compiled(folder: Path, *arguments: str) -> tuple[str, Records]:
    """Triton's version, and what it made."""
    done = compile_all(folder, *arguments)
    assert done.returncode == 0, done.stderr[-3000:]
    table = json.loads((folder / "table.json").read_text())
    return table["triton"], table["kernels"]


def wasteful(records: Records) -> Records:
    """Those that spill, or want more shared memory than there is."""
    return [
        record
        for record in records
        if record["stack"] or record["local"] or record["shared"] > MOST_SHARED[record["target"]]
    ]


def test_every_kernel_compiles_and_spills_nothing(tmp_path: Path) -> None:
    _, records = compiled(tmp_path, "--quick", "--target", "90")
    assert [record["variant"] for record in records] == [v.name for v in triton_variants.quick_ones()]
    assert wasteful(records) == []
    assert all(0 < record["registers"] <= 255 for record in records)
    assert sum(" bf16: " in record["variant"] for record in records) > 10


def test_the_committed_table_covers_every_variant_and_target() -> None:
    table = json.loads(TABLE.read_text())["kernels"]
    expected = {(v.name, f"sm_{target}") for v in triton_variants.variants() for target in TARGETS}
    assert {(record["variant"], record["target"]) for record in table} == expected
    assert len(table) == len(expected)
    assert wasteful(table) == []


def test_every_kernel_is_among_the_variants() -> None:
    """Read from the sources: a kernel is a function under @triton.jit whose name says so."""
    sources = [path.read_text() for path in (ROOT / "triton_kernels").glob("*.py")]
    lines = [line for source in sources for line in source.splitlines()]
    kernels = {line[4:].split("(")[0] for line in lines if line.startswith("def ") and "_kernel(" in line}
    assert len(kernels) > 15
    assert {v.launch.kernel.fn.__name__ for v in triton_variants.quick_ones()} == kernels


def test_a_spill_is_noticed() -> None:
    fine = {"stack": 0, "local": 0, "shared": 100 << 10, "target": "sm_90"}
    bad = [fine | {"stack": 8}, fine | {"local": 8}, fine | {"target": "sm_89"}]
    assert wasteful([fine, *bad]) == bad


def test_an_interpreted_kernel_is_not_compiled(tmp_path: Path) -> None:
    done = compile_all(tmp_path, "--quick", TRITON_INTERPRET="1")
    assert done.returncode != 0
    assert "TRITON_INTERPRET is set" in done.stderr


@pytest.mark.slow
def test_the_committed_table_is_what_the_compiler_makes(tmp_path: Path) -> None:
    """Of the same Triton; another one's numbers differ, but it spills nothing either."""
    committed = json.loads(TABLE.read_text())
    version, records = compiled(tmp_path)
    assert wasteful(records) == []
    if version == committed["triton"]:
        assert records == committed["kernels"], "run python -m bench.kernels.triton_resources again"
