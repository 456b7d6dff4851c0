"""Each test runs under the interpreter or on the GPU, whichever there is; the other one is skipped, and says why."""

from __future__ import annotations

import random

import pytest

pytest.importorskip("torch", reason="the Triton kernels need torch")

from tests.triton import mode, ordered_dot

mode.prepare()
pytest.importorskip("triton", reason="the Triton kernels need triton, which has wheels for Linux on x86-64 only")
if mode.mode() == "interpret":
    ordered_dot.install()


@pytest.fixture(params=mode.MODES)
def device(request: pytest.FixtureRequest) -> str:
    """Where the tensors of a test are."""
    why = mode.why_not(request.param)
    if why is not None:
        pytest.skip(why)
    return {"interpret": "cpu", "cuda": "cuda"}[request.param]


@pytest.fixture
def seed() -> int:
    """A fresh one each time; pytest shows what is printed when the test fails."""
    drawn = random.SystemRandom().randrange(2**31)
    print(f"seed {drawn}")
    return drawn
