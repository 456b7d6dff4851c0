"""SPECEE_BUILD_CUDA with nvcc, without it, and with one that fails, in a project cut down to build fast."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.packaging.project import copy_project, run

NVCC = shutil.which("nvcc")
EMPTY = 'extern "C" __attribute__((visibility("default"))) void* PyInit_{module}() {{ return nullptr; }}\n'
FAILING = """#!/bin/sh
echo "nvcc warning: something"
echo "error: unsupported GNU version! gcc versions later than 15 are not supported!"
exit 1
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """The project with one kernel, and nothing of the CPU's engine and of graphs."""
    found = copy_project(tmp_path / "tree")
    csrc = found / "csrc"
    for module, folders in (("_cpu", ("cpu", "policy", "bindings")), ("_graph", ("graph", "bindings/graph"))):
        for source in (source for folder in folders for source in (csrc / folder).glob("*.cpp")):
            source.unlink()
        (csrc / folders[-1] / f"empty{module}.cpp").write_text(EMPTY.format(module=module))
    kernels = found / "csrc" / "cuda" / "kernels.cuh"
    kernels.write_text('#include "activations.cuh"\n#define SPECEE_CUDA_KERNELS(X) X(round_rows)\n')
    return found


def without_nvcc(base: Path) -> str:
    """The PATH less nvcc: of folders that have one, links to all else."""
    folders = []
    for i, folder in enumerate(os.environ["PATH"].split(os.pathsep)):
        if not Path(folder, "nvcc").exists():
            folders.append(folder)
            continue
        links = base / f"path-{i}"
        links.mkdir()
        for program in Path(folder).iterdir():
            if program.name != "nvcc":
                (links / program.name).symlink_to(program)
        folders.append(str(links))
    return os.pathsep.join(folders)


def with_failing_nvcc(base: Path) -> str:
    fake = base / "fake" / "nvcc"
    fake.parent.mkdir()
    fake.write_text(FAILING)
    fake.chmod(0o755)
    return os.pathsep.join([str(fake.parent), os.environ["PATH"]])


def build(tree: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """In place; SPECEE_BUILD_CUDA is empty, which is as good as unset, unless given."""
    settings = {"SPECEE_BUILD_CUDA": "", "CUDA_HOME": "", "SPECEE_WERROR": "1", **env}
    return run(sys.executable, "setup.py", "build_ext", "--inplace", cwd=tree, env=settings)


def built(tree: Path) -> list[str]:
    """Extensions but ``_graph``, which is there on Linux whatever nvcc does."""
    names = sorted(path.name.partition(".")[0] for path in (tree / "specee").glob("*.so"))
    return [name for name in names if name != "_graph"]


@pytest.mark.skipif(NVCC is None, reason="no nvcc")
def test_with_nvcc_the_module_is_built_and_knows_its_kernels(tree: Path) -> None:
    done = build(tree)
    assert done.returncode == 0, done.stdout
    assert f"specee._cuda: built with {NVCC}\n" in done.stdout
    assert built(tree) == ["_cpu", "_cuda"]
    code = "from specee import _cuda; print(_cuda.kernels(), _cuda.device_count()[0] >= 0)"
    imported = run(sys.executable, "-c", code, cwd=tree)
    assert imported.returncode == 0, imported.stdout
    assert imported.stdout == "{'round_rows': ['pointer', 'pointer', 'int32']} True\n"


@pytest.mark.skipif(NVCC is None, reason="no nvcc that could have been used")
def test_0_builds_without(tree: Path) -> None:
    done = build(tree, SPECEE_BUILD_CUDA="0")
    assert done.returncode == 0, done.stdout
    assert "specee._cuda: not built (SPECEE_BUILD_CUDA=0)\n" in done.stdout
    assert built(tree) == ["_cpu"]


def test_without_nvcc_it_is_left_out_in_one_line(tree: Path, tmp_path: Path) -> None:
    done = build(tree, PATH=without_nvcc(tmp_path))
    assert done.returncode == 0, done.stdout
    assert "specee._cuda: not built, no nvcc; CuPy compiles its kernels\n" in done.stdout
    assert built(tree) == ["_cpu"]


def test_1_without_nvcc_is_an_error(tree: Path, tmp_path: Path) -> None:
    done = build(tree, PATH=without_nvcc(tmp_path), SPECEE_BUILD_CUDA="1")
    assert done.returncode != 0
    assert "SPECEE_BUILD_CUDA=1, and nvcc is neither on the PATH nor in CUDA_HOME" in done.stdout
    assert "Traceback" not in done.stdout
    assert built(tree) == []


def test_an_nvcc_that_fails_is_told_of_and_left_out(tree: Path, tmp_path: Path) -> None:
    done = build(tree, PATH=with_failing_nvcc(tmp_path))
    assert done.returncode == 0, done.stdout
    (line,) = [line for line in done.stdout.splitlines() if "nvcc failed" in line]
    assert "going on without: error: unsupported GNU version!" in line
    assert built(tree) == ["_cpu"]


def test_1_and_an_nvcc_that_fails_is_an_error_with_its_words(tree: Path, tmp_path: Path) -> None:
    done = build(tree, PATH=with_failing_nvcc(tmp_path), SPECEE_BUILD_CUDA="1")
    assert done.returncode != 0
    assert "unsupported GNU version!" in done.stdout
    assert "_cuda" not in built(tree)


def test_a_wrong_value_is_refused(tree: Path) -> None:
    done = build(tree, SPECEE_BUILD_CUDA="yes")
    assert done.returncode != 0
    assert "SPECEE_BUILD_CUDA='yes': allowed are 0 (off), 1" in done.stdout
    assert "Traceback" not in done.stdout
