"""The fake drivers, built once. Where ``specee._graph`` is not built, all modules are skipped."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.cuda.emulator import compiler, fresh_seed

BUILT = importlib.util.find_spec("specee._graph") is not None
if BUILT:
    from tests.graph.fake_driver import Built, FakeDriver, build
    from tests.graph.place import Place, emulated


class LeftOut(pytest.Module):
    """A module of tests that is not imported."""

    def collect(self) -> Iterable[pytest.Item]:
        pytest.skip("specee._graph is not built: it is on Linux alone", allow_module_level=True)


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    return None if BUILT else LeftOut.from_parent(parent, path=module_path)


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


@pytest.fixture(params=["emulated", "device"])
def place(request: pytest.FixtureRequest) -> Place:
    """The host, with the fake driver; a device, if there is one that can."""
    if request.param == "emulated":
        return emulated(request.getfixturevalue("fake"))
    from specee.backends import missing
    from specee.cuda import choose, graph

    reason = missing("cuda") or graph.missing()
    if reason is not None:
        pytest.skip(f"no graphs on a device: {reason}")
    return Place("cuda", choose().launcher, graph.LIBRARY)
