"""Each test runs under the interpreter, or on the GPU where there is one; skips say why.

Where the kernels cannot even be imported, all modules are skipped.
"""

from __future__ import annotations

import importlib.util
import random
from collections.abc import Iterable
from pathlib import Path

import pytest

LACKING = [name for name in ("torch", "triton") if importlib.util.find_spec(name) is None]

if not LACKING:
    import torch

    from tests.triton import interpreter, mode

    if mode.mode() == "interpret":
        interpreter.mend()


class LeftOut(pytest.Module):
    """A module of tests that is not imported."""

    def collect(self) -> Iterable[pytest.Item]:
        pytest.skip(f"needs {' and '.join(LACKING)}: pip install specee[hf,triton]", allow_module_level=True)


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    return LeftOut.from_parent(parent, path=module_path) if LACKING else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Half precision differs in a cast: it is interpreted in the full run, and on a device each time."""
    for item in items:
        if "tests/triton" in item.path.as_posix() and "interpret" in item.name and "float16" in item.name:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(params=["interpret", "cuda"])
def device(request: pytest.FixtureRequest) -> str:
    """Where the tensors of a test are."""
    why = mode.why_not(request.param)
    if why is not None:
        pytest.skip(why)
    return {"interpret": "cpu", "cuda": "cuda"}[request.param]


@pytest.fixture(params=["float32", "float16", "bfloat16"])
def dtype(request: pytest.FixtureRequest, device: str) -> torch.dtype:
    """Every type that there is a variant for."""
    if request.param == "bfloat16" and device == "cpu":
        pytest.skip("Triton's interpreter computes bfloat16 wrongly: compiled here, run on a GPU")
    return getattr(torch, request.param)


@pytest.fixture
def seed() -> int:
    """A fresh one each time; pytest shows what is printed when the test fails."""
    drawn = random.SystemRandom().randrange(2**31)
    print(f"seed {drawn}")
    return drawn
