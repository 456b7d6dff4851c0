"""The fake drivers, built once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("specee._graph", reason="specee._graph is built on Linux alone")

from tests.cuda.emulator import compiler, fresh_seed
from tests.graph.fake_driver import Built, FakeDriver, build


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """A driver, and an old one; all processes of a run share them."""
    if compiler() is None:
        pytest.skip("no C++ compiler: there is no fake driver to build graphs with")
    base = tmp_path_factory.getbasetemp()
    return build((base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "fake-driver")


@pytest.fixture(scope="session")
def library(built: Built) -> Path:
    """A driver with all kernels."""
    return built.library


@pytest.fixture(scope="session")
def old_library(built: Built) -> Path:
    """A driver without the functions of conditional nodes."""
    return built.old


@pytest.fixture
def fake(library: Path) -> Iterator[FakeDriver]:
    """Nothing was misused, whatever a test did."""
    found = FakeDriver(library)
    yield found
    assert found.misuses() == []


@pytest.fixture
def rng() -> np.random.Generator:
    """Fresh random inputs; the seed is in the report of a failure."""
    return np.random.default_rng(fresh_seed("inputs"))
