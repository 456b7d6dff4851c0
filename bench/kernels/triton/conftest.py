"""What all cases share: the GPU and its copy bandwidth.

Without a GPU modules are skipped before they import anything.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from .gpu import Gpu, why_not

REASON = why_not()


class LeftOut(pytest.Module):
    """A module of benchmarks that is not imported."""

    def collect(self) -> Iterable[pytest.Item]:
        pytest.skip(f"{REASON}", allow_module_level=True)


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    return LeftOut.from_parent(parent, path=module_path) if REASON else None


@pytest.fixture(scope="session")
def gpu() -> Gpu:
    return Gpu()


@pytest.fixture(scope="session")
def turns(request: pytest.FixtureRequest) -> int:
    """How often ours and torch take turns."""
    return 3 if request.config.getoption("--quick") else 10
