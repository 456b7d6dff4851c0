"""One emulator for all tests of kernels, and the devices they run on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from specee.cuda import choice
from tests.cuda.devices import Cupy, Device, Emulated, Torch
from tests.cuda.emulator import EmulatedLauncher, build, compiler


@pytest.fixture(scope="session")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The emulator's program."""
    if compiler() is None:
        pytest.skip("no C++ compiler: the kernels' logic is not run on the host")
    return build(tmp_path_factory.mktemp("emulator"))


@pytest.fixture(params=["emulated", "compiled", "nvrtc"])
def device(request: pytest.FixtureRequest) -> Device:
    """Every way to run kernels; those that need a device are skipped with the reason where there is none."""
    if request.param == "emulated":
        return Emulated(EmulatedLauncher(request.getfixturevalue("emulator")))
    reason = choice.missing(request.param)
    if reason is not None:
        pytest.skip(f"{request.param} kernels: {reason}")
    if request.param == "compiled":
        pytest.importorskip("torch", reason="compiled kernels are tested with torch's tensors")
        from specee.cuda.compiled import CompiledLauncher

        return Torch(CompiledLauncher())
    from specee.cuda.nvrtc import NvrtcLauncher

    return Cupy(NvrtcLauncher())


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """Fresh random inputs; the seed is in the report of a failure."""
    seed = int(np.random.SeedSequence().generate_state(1)[0])
    print(f"seed {seed}")
    return np.random.default_rng(seed)
