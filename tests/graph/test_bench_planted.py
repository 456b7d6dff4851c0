"""The bench of planted models, made small: exits say what was planted, and anything else is told of."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from specee.bench import cuda_planted
from specee.bench.cuda_planted import APPROXIMATE, Case, Plan
from specee.bench.cuda_planted_weights import PlantedWeights
from specee.bench.cuda_task import Report
from specee.bench.decode.lossless import PLAIN
from specee.cuda.graph import Means
from tests.graph.fake_driver import FakeDriver, FakeLauncher
from tests.random_model import SHAPES

STATIC = f"layerskip:exit_layer=1,speculation_length={cuda_planted.DRAFTS}"
SMALL = Plan(SHAPES["tiles"], (1,), (), texts=1, prompt=5, tokens=10)


def measured(fake: FakeDriver, plan: Plan, out: Path | None = None) -> Report:
    launcher, report = FakeLauncher(fake), Report(out)
    means = Means(launcher, launcher.function, fake.path)
    cuda_planted.measure(report, plan, "cpu", launcher=launcher, means=means)
    return report


def test_exits_say_what_was_planted(fake: FakeDriver, tmp_path: Path) -> None:
    always, never = Case((1.0,)), Case((0.0,))
    report = measured(fake, replace(SMALL, cases=(always, never)), tmp_path / "out.json")
    assert report.failed == 0
    assert set(report["cases"]) == set(report["checks"]) == {always.name, never.name}
    for case in report["cases"].values():
        assert list(case["policies"]) == [PLAIN, "del", STATIC, "specee", APPROXIMATE]
        for policy, found in case["policies"].items():
            assert found["tokens_s"] > 0
            assert found["decode"]["min"] <= found["decode"]["total"] <= found["decode"]["max"]
            assert policy == APPROXIMATE or found["agreement"] == 1
    early, late = (report["cases"][case.name] for case in (always, never))
    assert early["planted"] == {"known": {"1 layers": 1.0, "3 layers": 1.0}, "exit_layer": 1.0}
    for policy in (STATIC, "specee"):
        assert early["policies"][policy]["acceptance"] == early["policies"][policy]["exit_layer"] == 1
        assert early["policies"][policy]["tokens_per_round"] > 2
    assert early["policies"][APPROXIMATE]["agreement"] == early["policies"][APPROXIMATE]["exit_layer"] == 1
    assert late["planted"] == {"known": {"1 layers": 0.0, "3 layers": 1.0}, "exit_layer": 3.0}
    assert late["policies"][STATIC]["acceptance"] == 0
    assert late["policies"][STATIC]["drafted"] > 0
    # Bluffs leave early, with a token that is not the whole model's; what is silent does not.
    approximate = late["policies"][APPROXIMATE]
    assert 1 < approximate["exit_layer"] < 3
    left = (3 - approximate["exit_layer"]) / 2 * (SMALL.tokens - 1)  # the first token is the prompt's
    assert approximate["agreement"] == pytest.approx(1 - left / SMALL.tokens)
    assert set(json.loads((tmp_path / "out.json").read_text())) == {"cases", "checks"}


def test_what_was_not_planted_is_told_of(fake: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as by a backend that reads other weights than those that were written."""
    monkeypatch.setattr(PlantedWeights, "show", lambda made, truth: None)
    monkeypatch.setattr(Plan, "policies", ("specee",))
    report = measured(fake, replace(SMALL, cases=(Case((0.5,)),)))
    assert report.failed == 1
    [found] = report["checks"].values()
    assert "of what was planted" in found["error"]


def test_texts_that_differ_are_told_of() -> None:
    found: dict[str, Any] = {"policies": {PLAIN: {"agreement": 1.0}}, "differing": {}}
    assert cuda_planted.checked(found) == {"agreement": 1.0}
    found["differing"] = {"del": [{"prompt": 0, "position": 3, "plain": 5, "got": 6}]}
    with pytest.raises(cuda_planted.SpeceeError, match=r"not lossless.*'got': 6"):
        cuda_planted.checked(found)
