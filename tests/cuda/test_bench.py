"""The bench's cases run, made small, and without a device it says why it cannot."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from specee.bench import cuda_decode, cuda_kernels, cuda_planted, cuda_steps
from specee.bench.cuda_cases import Shapes, cases
from specee.bench.cuda_random import backend_with, random_weights
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
    weights = random_weights(config, "cpu")
    backend = backend_with(weights, config, "cpu", launcher=LibraryLauncher())
    found = {name: call() for name, call in cuda_steps.steps(backend, [1, 3], [70], repeats=2)}
    assert set(found) == {"1 rows behind 70 positions", "3 rows behind 70 positions"}
    assert all(0 < case["min"] <= case["median"] <= case["max"] for case in found.values())
    found = {name: call() for name, call in cuda_steps.drafts(backend, [1, 3], [5], repeats=2)}
    assert set(found) == {"1 drafts behind 5 positions", "3 drafts behind 5 positions"}
    assert all(0 < case["min"] <= case["median"] <= case["max"] for case in found.values())


def test_what_a_token_reads() -> None:
    """As the sizes of Llama-2-7B say it: layers, head, and what came before."""
    config = cuda_decode.LLAMA_2_7B
    layer = 4 * 4096 * 4096 + 3 * 4096 * 11008
    weights = 2 * (32 * layer + 32000 * 4096)
    backend = SimpleNamespace(config=config, weight_bytes=weights)
    cache = 128 + cuda_decode.TURNS // 2
    assert cuda_decode.bytes_read(backend, 128) == weights + 2 * 2 * 32 * 4096 * cache
    assert 13.2e9 < weights < 13.3e9


def test_how_far_exits_are_from_a_line() -> None:
    layers, exact = [8, 16, 24, 32], [1.0, 1.5, 2.0, 2.5]
    found = cuda_decode.line_of(layers, exact)
    assert found["fixed_ms"] == pytest.approx(0.5)
    assert found["layer_ms"] == pytest.approx(1 / 16)
    assert found["off_line"] == pytest.approx(0, abs=1e-9)
    assert cuda_decode.line_of(layers, [1.0, 1.8, 2.0, 2.5])["off_line"] > 0.05


@pytest.mark.parametrize("bench", [cuda_kernels, cuda_steps, cuda_decode, cuda_planted])
def test_without_a_device_it_says_why(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    set_up(monkeypatch, 0, None)
    monkeypatch.setattr("sys.argv", [bench.__name__])
    assert bench.main() == 2
    assert "CUDA kernels are not available: specee._cuda finds no device" in capsys.readouterr().err
