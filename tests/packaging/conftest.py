"""One sdist, and one wheel built from it, shared by all packaging tests of a run."""

from __future__ import annotations

import os
import tarfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.packaging.cleanenv import CleanEnv, make_clean_env
from tests.packaging.project import build, copy_project


@dataclass(frozen=True)
class Built:
    """Where a build happened (its objects are in ``tree/build``), and what came of it."""

    tree: Path
    sdist: Path
    wheel: Path


def found(base: Path) -> Built:
    """What scripts/test has built: the same, with the kernels of devices where there is an nvcc."""
    (sdist,), (wheel,) = (base / "dist").glob("*.tar.gz"), (base / "dist").glob("*.whl")
    (tree,) = (base / "unpacked").iterdir()
    return Built(tree, sdist, wheel)


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """An sdist of the project, unpacked elsewhere, and the wheel built from that."""
    if "SPECEE_TEST_BUILT" in os.environ:
        return found(Path(os.environ["SPECEE_TEST_BUILT"]))
    base = tmp_path_factory.mktemp("built")
    packed = build("sdist", copy_project(base / "copy"), base / "dist")
    assert packed.returncode == 0, packed.stdout
    (sdist,) = (base / "dist").glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(base / "unpacked", filter="data")
    (tree,) = (base / "unpacked").iterdir()
    # Kernels of devices are compiled by the wheel that scripts/test installs, and by test_cuda_build.py.
    compiled = build("wheel", tree, base / "dist", {"SPECEE_BUILD_CUDA": "0"})
    assert compiled.returncode == 0, compiled.stdout
    (wheel,) = (base / "dist").glob("*.whl")
    return Built(tree, sdist, wheel)


@pytest.fixture(scope="session")
def clean_env(built: Built, tmp_path_factory: pytest.TempPathFactory) -> CleanEnv:
    """A virtual environment with the wheel and its core requirements, and nothing else."""
    return make_clean_env(built.wheel, tmp_path_factory.mktemp("clean"))
