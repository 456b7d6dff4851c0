"""Policies in turns: what is added up, what counts as stepped aside, regret and ablation on a tiny model."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from specee.backends import missing
from specee.bench import prompts
from specee.bench.decode import ablation, contest_task, regret, spent, trees
from specee.bench.decode.contest_task import Task
from specee.bench.decode.interleaved import Contest, Turn
from specee.bench.decode.spent import Spent
from specee.bench.report import tables
from specee.engine.statistics import Statistics
from specee.errors import ConfigurationError
from specee.policies import ExitLayer, ModelView, NgramLookup, Outcome, Round, Times
from tests.tiny_models import tiny_gguf

EXIT = ExitLayer(3)


def outcome(drafted: int = 0, shadow: float = 0.0, source: Any = EXIT) -> Outcome:
    """A step of one sequence that emitted two tokens, one of them drafted if any were."""
    entry = Round(0, (1, 2), source if drafted else None, drafted, min(drafted, 1))
    return Outcome((entry,), Times(shadow=shadow))


def statistics(*outcomes: Outcome) -> Statistics:
    """Steps of a second each."""
    return Statistics(list(outcomes), [1.0] * len(outcomes))


def run(decode: float, prompt: float = 1.0, tokens: int = 10) -> Spent:
    return Spent(tokens, decode, prompt, 0.5, 0.0, 0.0, 4, 2, Counter({"3": 2}), Counter({2: 2}))


def test_the_first_step_is_the_prompts_and_its_shadows_count() -> None:
    found = spent.of(
        statistics(outcome(shadow=0.25), outcome(2), outcome(3, source=NgramLookup()), outcome())
    )
    assert (found.tokens, found.decode, found.prompt, found.shadow) == (6, 3.0, 1.0, 0.25)
    assert (found.drafted, found.accepted) == (5, 2)
    assert found.sources == {"3": 1, "lookup": 1, "none": 1}
    assert found.lengths == {2: 1, 3: 1, 0: 1}
    assert found.shadow_shares == {"all": 0.25 / 4, "aside": 0.0, "busy": 0.25 / 4, "time_aside": 0.0}


def test_aside_is_what_comes_long_after_the_last_draft() -> None:
    quiet = [outcome(shadow=0.5)] * (spent.ASIDE + 2)
    assert spent.aside_steps([outcome(2), *quiet]) == [spent.ASIDE + 1, spent.ASIDE + 2]
    assert spent.aside_steps(quiet) == [spent.ASIDE + 1]  # the first step is the prompt's
    assert spent.aside_steps([*quiet, outcome(1), *quiet[:-2]]) == [spent.ASIDE + 1]
    found = spent.of(statistics(outcome(2), *quiet))
    assert (found.aside, found.aside_shadow) == (2.0, 1.0)
    assert found.shadow_shares["aside"] == 0.5


def test_runs_add_up() -> None:
    both = spent.together([run(1.0), run(3.0)])
    assert (both.tokens, both.decode, both.request, both.speed) == (20, 4.0, 6.0, 5.0)
    assert both.sources == {"3": 4}
    assert both.acceptance == 0.5


def test_ratios_are_of_the_totals_and_spread_over_turns() -> None:
    empty = run(0.0, prompt=1.0, tokens=0)
    contest = Contest(
        [
            Turn({"autoregressive": run(2.0), "del": run(1.0)}, {}),
            Turn({"autoregressive": run(4.0), "del": run(5.0)}, {"del": {"position": 3}}),
            Turn({"autoregressive": empty, "del": empty}, {}),
        ]
    )
    ratio = contest.ratio("del")
    assert (ratio["total"], ratio["min"], ratio["max"]) == (1.0, 0.8, 2.0)
    assert contest.ratio("del", seconds="request")["total"] == 1.0
    assert contest.differing == {"del": [{"prompt": 1, "position": 3}]}
    assert Contest(contest.turns[2:]).ratio("del")["median"] == 1.0


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    if reason := missing("cpu"):
        pytest.skip(reason)
    return str(
        tiny_gguf(
            "llama", tmp_path_factory.mktemp("model") / "tiny.gguf", seed=2, max_position_embeddings=2048
        )
    )


@pytest.mark.parametrize("wrong", [{"tokens": 1}, {"rounds": 0}, {"every": 0}, {"most": 0}])
def test_numbers_that_measure_nothing_are_refused(source: str, wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigurationError, match="="):
        Task(threads=1, model=source, **wrong).opened([])


def test_prompts_are_chosen_and_repeated(source: str) -> None:
    task = Task(threads=1, model=source, every=5, most=2, rounds=2)
    checkpoint = task.opened(["del"])
    whole = prompts.encoded(checkpoint.tokenizer)
    assert task.texts(checkpoint, task.files) == [whole[0], whole[5]] * 2
    raw = task.texts(checkpoint, task.files, raw=True)
    assert checkpoint.tokenizer.decode(raw[1]) == prompts.load()[5]


def test_regret_is_file_by_file_with_lookup_where_answers_copy(source: str) -> None:
    task = Task(
        threads=1, model=source, weights=("fp32",), tokens=8, files=(prompts.OWN, prompts.COPYING), most=1
    )
    found = regret.measure(task, ("del",))
    assert [part["label"] for part in found["parts"]] == ["prompts fp32", "copy_prompts fp32"]
    first, copying = found["parts"]
    assert list(first["policies"]) == ["autoregressive", "del"]
    assert list(copying["policies"]) == ["autoregressive", "del", "prompt-lookup"]
    for table in tables.of("regret", found):
        assert {len(line) for line in table.rows} == {len(table.header)}
        assert "DIFFER" not in table.note


def test_without_the_fitted_parts_of_the_package(
    source: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tasks: list[Task] = []

    def noted(task: Task, policies: Any) -> dict[str, Any]:
        tasks.append(task)
        return {"parts": []}

    monkeypatch.setattr(regret, "measure", noted)
    for more in ([], ["--no-speculator"]):
        monkeypatch.setattr("sys.argv", ["regret", "--model", source, "--threads", "1", *more])
        regret.main()
    assert [task.fitted for task in tasks] == [True, False]
    asked: list[Any] = []
    monkeypatch.setattr("specee.load", lambda *_, speculator, **__: asked.append(speculator))
    for task in tasks:
        task.loaded("fp32")
    assert asked == [None, False]
    view = ModelView(4, drafter=0.5)
    monkeypatch.setattr("specee.bench.decode.policy_check.packaged_view", lambda _: view)
    tasks[0].opened(["drafter"])
    with pytest.raises(ConfigurationError, match="no drafter block"):
        tasks[1].opened(["drafter"])


def test_ordinary_files_are_also_added_up(source: str, tmp_path: Path) -> None:
    other = tmp_path / "other.jsonl"
    other.write_text('{"turns": ["One and two."]}\n')
    task = Task(threads=1, model=source, tokens=4, files=(other, prompts.OWN, prompts.COPYING), most=2)
    found = regret.measure(task, ("del",))
    assert [part["label"].split()[0] for part in found["parts"]] == [
        "other",
        "prompts",
        "copy_prompts",
        "all",
    ]
    assert [part["prompts"] for part in found["parts"]] == [1, 2, 2, 3]
    everything = found["parts"][-1]["policies"]["del"]["decode"]
    assert everything["max"] == max(part["policies"]["del"]["decode"]["max"] for part in found["parts"][:2])


def test_trees_are_compared_in_size_and_in_what_rows_take(source: str) -> None:
    """The tiny model has no block: trees of any other policy are reported alike."""
    task = Task(threads=1, model=source, tokens=8, most=1)
    found = trees.measure(task, ("del", "prompt-lookup"))
    (part,) = found["parts"]
    assert list(part["policies"]) == ["autoregressive", "del", "prompt-lookup"]
    assert part["policies"]["autoregressive"]["accepted_per_round"] == 0
    for figures in part["policies"].values():
        assert figures["drafted_per_round"] >= figures["accepted_per_round"] >= 0
    assert next(iter(part["row_ms"])) == 1
    assert min(part["row_ms"].values()) > 0
    (table,) = tables.of("trees", found)
    assert {len(line) for line in table.rows} == {len(table.header)}
    with pytest.raises(ConfigurationError, match="drafter"):
        trees.measure(task)


def test_variants_are_measured_on_the_real_model_and_on_planted_ones(source: str, tmp_path: Path) -> None:
    task = Task(threads=1, model=source, tokens=8, most=1)
    found = ablation.measure(task, work=tmp_path, ks=(1,))
    assert [part["label"].split()[0] for part in found["parts"]] == ["real", "k=1"]
    for part in found["parts"]:
        assert list(part["policies"]) == ["autoregressive", *ablation.VARIANTS]
        assert part["differing"] == {}
    assert len(tables.of("ablation", found)) == 2


def test_tokens_that_differ_are_told_and_end_with_1(
    source: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = regret.measure(Task(threads=1, model=source, tokens=4, most=1), ("del",))
    found["parts"][0]["differing"] = {"del": [{"prompt": 0, "position": 1, "plain": 2, "got": 3}]}
    with pytest.raises(SystemExit) as ended:
        contest_task.finish(argparse.Namespace(save=None, out=None), "regret", found)
    assert ended.value.code == contest_task.DIFFERENT
    said = capsys.readouterr()
    assert "TOKENS DIFFER: del in 1 prompts" in said.out
    assert "not lossless: prompts" in said.err


def test_the_meter_ends_where_it_was_to(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from specee.bench.progress import Meter

    made: list[Meter] = []

    class Seen(Meter):
        def __init__(self, total: int, unit: str) -> None:
            super().__init__(total, unit)
            made.append(self)

    monkeypatch.setattr(regret, "Meter", Seen)
    regret.measure(Task(threads=1, model=source, tokens=4, most=2, rounds=2), ("del", "auto"))
    assert made[0].done == made[0].total > 0
