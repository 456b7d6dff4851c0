"""One emulator for all tests of kernels, and the devices they run on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from specee.cuda import choice
from tests.cuda.devices import Cupy, Device, Emulated, Torch
from tests.cuda.emulator import EmulatedLauncher, compiler, fresh_seed, program


@pytest.fixture(scope="session")
def emulator() -> Path:
    """The emulator's program."""
    if compiler() is None:
        pytest.skip("no C++ compiler: the kernels' logic is not run on the host")
    return program()


@pytest.fixture(params=["emulated", "compiled", "nvrtc"])
def device(request: pytest.FixtureRequest) -> Device:
    """Every way to run kernels; those that need a device are skipped with the reason where there is none."""
    if request.param == "emulated":
        order = fresh_seed("order of threads")
        return Emulated(EmulatedLauncher(request.getfixturevalue("emulator"), order))
    reason = choice.missing(request.param)
    if reason is not None:
        pytest.skip(f"{request.param} kernels: {reason}")
    if request.param == "compiled":
        torch = pytest.importorskip("torch", reason="compiled kernels are tested with torch's tensors")
        if not torch.cuda.is_available():
            pytest.skip("compiled kernels: there is a device, and this torch cannot use it")
        from specee.cuda.compiled import CompiledLauncher

        return Torch(CompiledLauncher())
    from specee.cuda.nvrtc import NvrtcLauncher

    return Cupy(NvrtcLauncher())


@pytest.fixture
def rng() -> np.random.Generator:
    """Fresh random inputs; the seed is in the report of a failure."""
    return np.random.default_rng(fresh_seed("inputs"))
