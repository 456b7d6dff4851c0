"""The bench of rounds runs, made small, and without a device it says why it cannot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from specee.backends import cuda_repeats
from specee.bench import cuda_decode, cuda_exits, cuda_rounds
from specee.bench.cuda_task import Report
from specee.cuda.graph import Means
from specee.types import WeightFormat
from tests.cuda.test_choice import set_up
from tests.graph.fake_driver import FakeDriver, FakeLauncher
from tests.random_model import SHAPES


def test_every_case_runs(fake: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_repeats, "ONE_BY_ONE", 10**9)  # so that all graphs are rounds
    launcher = FakeLauncher(fake)
    means = Means(launcher, launcher.function, fake.path)
    setting = cuda_rounds.Setting(SHAPES["tiles-short"], "cpu", means, before=3, repeats=1, warm=0)
    report = Report()
    cuda_rounds.run(setting, report)
    found = report["cases"]
    assert report.failed == 0
    exits = 2  # rows leave after one layer, or after both
    assert len(found) == 2 * (2 + 3 * 2 + 2 * exits + 2)
    for how in ("steps", "backend", "graph", "launches", "exits", "3 drafts"):
        assert [name for name in found if name.startswith(how)]
    assert all(line["min"] <= line["median"] <= line["max"] for line in found.values())
    # The first of the backend's rounds is taken step by step.
    turns = cuda_rounds.TURNS
    assert fake.log().count("cuGraphLaunch 0") == 2 * (3 + turns - 1 + turns + exits + 1 + 1)


def test_decoding_and_exits_of_a_shape(fake: FakeDriver, tmp_path: Path) -> None:
    launcher = FakeLauncher(fake)
    means = Means(launcher, launcher.function, fake.path)
    report = Report(tmp_path / "out.json")
    report["copy_gb_per_s"] = 100.0
    formats: tuple[WeightFormat, ...] = ("bf16", "int8", "int4")
    for stored in formats:
        case = cuda_decode.Case(stored, SHAPES["tiles"], stored, exits=stored == "bf16")
        cuda_decode.measure(report, case, "cpu", repeats=1, launcher=launcher, means=means)
    assert report.failed == 0
    assert json.loads((tmp_path / "out.json").read_text()) == report
    for found in report["cases"].values():
        median = found["token_ms"]["median"]
        assert found["tokens_per_s"] == pytest.approx(1e3 / median)
        assert found["of_copy"] == pytest.approx(found["bytes"] / (median * 1e-3) / 100e9)
    [exits] = report["exits"].values()
    assert [name for name in exits if name.endswith("layers")] == ["1 layers", "2 layers", "3 layers"]
    assert {"fixed_ms", "layer_ms", "off_line"} < set(exits)


def errors(report: Report) -> dict[str, str]:
    return {name: found["error"] for name, found in report["cases"].items() if "error" in found}


def test_what_is_no_launch_is_not_timed(fake: FakeDriver, tmp_path: Path) -> None:
    """What fails says so, and the others go on."""
    launcher = FakeLauncher(fake)
    means = Means(launcher, launcher.function, fake.path, one_by_one=True)
    setting = cuda_rounds.Setting(SHAPES["tiles-short"], "cpu", means, before=3, repeats=1, warm=0)
    report = Report(tmp_path / "out.json")
    report["copy_gb_per_s"] = 100.0
    cuda_rounds.run(setting, report)
    case = cuda_decode.Case("decoding", SHAPES["tiles-short"], "bf16")
    cuda_decode.measure(report, case, "cpu", repeats=1, launcher=launcher, means=means)
    failed = errors(report)
    assert len(failed) == report.failed == 2 * (1 + 2 + 1) + 1
    assert all("no launch here (kernels are to be launched one by one)" in why for why in failed.values())
    launches = ("backend's rounds", "exits", "3 drafts", "decoding")
    assert all(name.startswith(launches) for name in failed)
    assert {name for name in report["cases"] if name.startswith("steps")} == {
        f"steps, {count} sequences" for count in (1, 4)
    }
    assert json.loads((tmp_path / "out.json").read_text()) == report


def test_exits_that_go_another_way_are_not_timed(fake: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the head says something else, rows leave later than scripted."""
    launcher = FakeLauncher(fake)
    means = Means(launcher, launcher.function, fake.path)
    setting = cuda_rounds.Setting(SHAPES["tiles-short"], "cpu", means, before=3, repeats=1, warm=0)
    right = cuda_exits.said_after

    def wrong(*one: Any) -> list[list[int]]:
        return [[token + 1 for token in own] for own in right(*one)]

    monkeypatch.setattr(cuda_exits, "said_after", wrong)
    report = Report()
    cuda_rounds.run(setting, report)
    assert errors(report)
    assert all(
        "rows left after [2] layers, and were to leave after 1" in why for why in errors(report).values()
    )


def test_without_a_device_it_says_why(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    set_up(monkeypatch, 0, None)
    monkeypatch.setattr("sys.argv", ["cuda_rounds"])
    assert cuda_rounds.main() == 2
    assert "CUDA kernels are not available: specee._cuda finds no device" in capsys.readouterr().err
