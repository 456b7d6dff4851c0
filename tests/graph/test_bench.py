"""The bench of rounds runs, made small, and without a device it says why it cannot."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

from specee.backends import cuda_repeats
from specee.bench import cuda_decode, cuda_rounds
from specee.cuda.graph import Means
from specee.errors import SpeceeError
from tests.cuda.test_choice import set_up
from tests.graph.fake_driver import FakeDriver, FakeLauncher
from tests.random_model import SHAPES


def test_every_case_runs(fake: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_repeats, "ONE_BY_ONE", 10**9)  # so that all graphs are rounds
    launcher = FakeLauncher(fake)
    means = Means(launcher, launcher.function, fake.path)
    setting = cuda_rounds.Setting(SHAPES["tiles-short"], "cpu", means, before=3, repeats=1, warm=0)
    found = cuda_rounds.run(setting)
    exits = 2  # rows leave after one layer, or after both
    assert len(found) == 2 * (2 + 3 * 2 + 2 * exits + 2)
    for how in ("steps", "backend", "graph", "launches", "exits", "3 drafts"):
        assert [name for name in found if name.startswith(how)]
    assert all(line["min"] <= line["median"] <= line["max"] for line in found.values())
    # The first of the backend's rounds is taken step by step.
    turns = cuda_rounds.TURNS
    assert fake.log().count("cuGraphLaunch 0") == 2 * (3 + turns - 1 + turns + exits + 1 + 1)


def test_exits_of_a_shape(fake: FakeDriver) -> None:
    launcher = FakeLauncher(fake)
    means = Means(launcher, launcher.function, fake.path)
    case = cuda_decode.Case("small", SHAPES["tiles"], "bf16", exits=True)
    found = cuda_decode.measured(case, "cpu", 100.0, repeats=1, launcher=launcher, means=means)
    assert found["graphs_missing"] is None
    exits = found["exits"]
    assert [name for name in exits if name.endswith("layers")] == ["1 layers", "2 layers", "3 layers"]
    assert {"fixed_ms", "layer_ms", "off_line"} < set(exits)


def test_exits_that_are_no_launch_are_not_timed(fake: FakeDriver) -> None:
    launcher = FakeLauncher(fake)
    means = Means(launcher, launcher.function, fake.path, one_by_one=True)
    setting = cuda_rounds.Setting(SHAPES["tiles-short"], "cpu", means, before=3, repeats=1, warm=0)
    with pytest.raises(SpeceeError, match=r"no launch here \(kernels are to be launched one by one\): use a"):
        cuda_rounds.run(setting)


def test_without_a_device_it_says_why(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    set_up(monkeypatch, 0, None)
    monkeypatch.setattr("sys.argv", ["cuda_rounds"])
    assert cuda_rounds.main() == 2
    assert "CUDA kernels are not available: specee._cuda finds no device" in capsys.readouterr().err
