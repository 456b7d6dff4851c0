"""The bench's cases run, made small, and without a device it says why it cannot."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from specee.bench import cuda_kernels, cuda_steps
from specee.bench.cuda_cases import Shapes, cases
from tests.cuda.emulator import EmulatedLauncher, LibraryLauncher, compiler
from tests.cuda.test_choice import set_up
from tests.random_model import SHAPES

SMALL = Shapes(
    hidden=64,
    vocab=40,
    nodes=2,
    products=((16, 64),),
    rows=(1, 9),
    copies=1,
    heads=(2, 1, 64),
    lengths=(30,),
    large_vocab=50,
)


def test_every_case_runs(emulator: Path) -> None:
    launcher = EmulatedLauncher(emulator)
    found = list(cases(launcher, np.array, SMALL))
    for case in found:
        launcher.launched.clear()
        for call in case.calls:
            call()
        assert launcher.launched, case.name
        assert case.bytes_read > 0
    names = " ".join(case.name for case in found)
    for part in ("predictor", "scoring", "bf16", "int8", "int4", "attention", "greedy", "drawn"):
        assert part in names


def test_steps_are_measured() -> None:
    pytest.importorskip("torch")
    if compiler() is None:
        pytest.skip("no C++ compiler: the kernels' logic is not run on the host")
    config = SHAPES["tiles-short"]
    weights = cuda_steps.random_weights(config, "cpu")
    backend = cuda_steps.backend_with(weights, config, "cpu", launcher=LibraryLauncher())
    found = cuda_steps.measured(backend, [1, 3], [70], repeats=2)
    assert set(found) == {"1 rows behind 70 positions", "3 rows behind 70 positions"}
    assert all(0 < case["min"] <= case["median"] <= case["max"] for case in found.values())
    found = cuda_steps.drafted(backend, [1, 3], [5], repeats=2)
    assert found.pop("block_bytes") > 0
    assert set(found) == {"1 drafts behind 5 positions", "3 drafts behind 5 positions"}
    assert all(0 < case["min"] <= case["median"] <= case["max"] for case in found.values())


@pytest.mark.parametrize("bench", [cuda_kernels, cuda_steps])
def test_without_a_device_it_says_why(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    set_up(monkeypatch, 0, None)
    monkeypatch.setattr("sys.argv", [bench.__name__])
    assert bench.main() == 2
    assert "CUDA kernels are not available: specee._cuda finds no device" in capsys.readouterr().err
