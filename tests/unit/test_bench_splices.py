"""Texts of planted models that change in the middle: what is said of how policies follow."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from specee.backends import missing
from specee.bench import options
from specee.bench.decode import planted_task, splices
from specee.bench.decode.contest_task import Task
from specee.bench.report import tables
from specee.errors import ConfigurationError
from specee.replay import Recovery, Static, followed
from specee.replay.splice import SOON
from tests.tiny_models import tiny_gguf
from tests.unit.recorded import planted

SIZES: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_gguf("llama", tmp_path_factory.mktemp("model") / "tiny.gguf", seed=3, **SIZES)


def recovery(*values: float, best: float = 1.5) -> Recovery:
    return Recovery(values, Static(6, 3, best))


def test_what_is_said_of_a_few_texts() -> None:
    never = recovery(*(0.5,) * (SOON + 1), best=1.1)
    later = recovery(0.5, 0.9, *(0.95,) * SOON)
    late = recovery(*(0.5,) * (SOON + 1), 1.0)
    just = recovery(*(0.5,) * SOON, 0.9)
    texts = [later, never, recovery(0.5, 0.2), recovery(0.1, 0.2, 0.3, 1.0), late, just]
    assert splices.sums(texts) == {
        "count": 6,
        "best_static": 1.5,
        "plain_good": 1,
        "rounds": {"median": 11.5, "max": SOON + 1},
        "soon": 3,
        "short": 1,
        "never": 1,
        "later_good": pytest.approx(4 / 6),
        "later_value": pytest.approx((0.95 * 2 + 0.5 * 2 + 1.0 + 0.9) / 6),
    }
    nothing = splices.sums([never])
    assert (nothing["rounds"], nothing["never"], nothing["soon"], nothing["later_good"]) == (None, 1, 0, 0)
    assert splices.sums([recovery()])["later_good"] is None
    empty = splices.sums([])
    assert (empty["count"], empty["best_static"], empty["plain_good"]) == (0, None, 0)


def test_a_text_that_is_over_says_nothing_by_not_getting_there() -> None:
    found = followed([recovery(*(0.5,) * SOON), recovery(*(0.5,) * (SOON + 1))])
    assert (found.texts, found.short, found.never) == (2, 1, 1)


def test_a_policy_that_follows_and_one_that_does_not() -> None:
    stuck = "layerskip:exit_layer=6,speculation_length=8"
    found = splices.part(planted(6), planted(20), 20, "packed", ["del", stuck])
    assert found["label"] == "k = 6 then k = 20 packed"
    follows, stays = found["policies"]["del"], found["policies"][stuck]
    assert follows["texts"] == follows["planted"]
    assert follows["texts"]["count"] == follows["texts"]["soon"] == 2
    assert follows["texts"]["never"] == follows["texts"]["short"] == 0
    assert follows["texts"]["later_good"] > 0.95
    assert (stays["texts"]["rounds"], stays["texts"]["never"]) == (None, 2)
    assert follows["over_plain"] > 1 > stays["over_plain"]
    assert 0 < follows["made_anew"] < 1
    assert 0 < follows["plan_us"]["median"] <= follows["plan_us"]["p90"]
    assert follows["round_us"] > 0
    other = splices.part(planted(6), planted(20), 12, "packed", ["del"])["policies"]["del"]
    assert (other["texts"]["count"], other["planted"]["count"]) == (2, 0), "no text is best left at 12"
    [table] = tables.of("splices", {"soon": SOON, "good": 0.85, "parts": [found]})
    assert {len(line) for line in table.rows} == {len(table.header)}
    said = dict(zip(table.header, table.rows[2], strict=True))
    assert (said["policy"], said["texts"], said["never"], said["good later"]) == (
        stuck,
        "all",
        "2 of 2",
        "0%",
    )


def test_plain_decoding_is_good_only_where_little_is_to_be_gained() -> None:
    dear = planted(20)
    [one] = splices.part(planted(6), dear, 20, "packed", ["autoregressive"])["policies"].values()
    best = one["texts"]["best_static"]
    assert one["texts"]["plain_good"] == (2 if best * 0.85 <= 1 else 0)
    assert one["texts"]["later_value"] == pytest.approx(1 / best)


def test_one_model_alone_is_refused(source: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"k=\[2, 2\].*two"):
        splices.measure(Task(threads=1, model=str(source)), work=tmp_path, ks=[2, 2])
    with pytest.raises(ConfigurationError, match="no drafter block"):
        splices.measure(Task(threads=1, model=str(source)), work=tmp_path, ks=[1, 2], policies=["drafter"])
    with pytest.raises(ConfigurationError, match=r"k=4: .*1\.\.3"):
        splices.measure(Task(threads=1, model=str(source)), work=tmp_path, ks=[2, 4])


def test_the_command_records_prints_and_saves(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if reason := missing("cpu"):
        pytest.skip(reason)
    saved: dict[str, Any] = {}
    monkeypatch.setattr("specee.bench.machine.save", lambda name, result: saved.update({name: result}))
    words = ["splices", "--model", source, "--threads", 1, "--k", 1, "--k", 3, "--tokens", 12]
    words += ["--most-prompts", 2, "--weights", "fp32", "--work", tmp_path, "--save", "splices"]
    monkeypatch.setattr(sys, "argv", list(map(str, words)))
    planted_task.main(
        splices.__doc__, "splices", splices.POLICIES, splices.measure, splices.KS, options.finish
    )
    said = capsys.readouterr().out
    assert "Texts that change: k=1 then k=3 fp32" in said
    assert "Texts that change: k=3 then k=1 fp32" in said
    parts = json.loads(json.dumps(saved["splices"]))["parts"]
    assert [part["policies"]["del"]["texts"]["count"] for part in parts] == [2, 2]
