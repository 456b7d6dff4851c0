"""Bounds on the time and the memory of a fit: what was made is whole, and says what there was no time for."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors

import specee
from specee.cli import main
from specee.engine import ActiveSequence
from specee.errors import CheckpointError, ConfigurationError
from specee.fitting import adapters, block, judging, pipeline, states
from specee.fitting.calibration import THRESHOLDS
from specee.fitting.corpus import Corpus, Text
from specee.fitting.gather import gather_texts
from specee.fitting.limits import LEAST, Footprint, Limits, bytes_of, within
from specee.fitting.pipeline import fit
from specee.fitting.plan import Plan, Run
from specee.fitting.timetable import Timetable
from specee.fitting.writer import Writer
from specee.models.speculator import fingerprint, read_speculator
from tests.random_model import BASE
from tests.tiny_models import tiny_folder

PLAN = Plan(
    tokens=1500, batch_tokens=256, adapter_samples=1200, exit_samples=300, exit_epochs=2, generations=16,
    generation_tokens=6, minutes=10.0,
)  # fmt: skip


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Killed(BaseException):
    """Stands for a signal that nobody catches."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> specee.Model:
    return specee.load(tiny_folder("llama", tmp_path_factory.mktemp("tiny"), seed=3), threads=1)


@pytest.fixture
def long_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some texts to judge by, one at a time."""

    def gather(run: Run) -> tuple[list[Text], list[Text]]:
        fitted, held_out = gather_texts(run)
        return fitted, [*held_out, *fitted[:3]]

    monkeypatch.setattr(judging, "_TOKENS", 64)
    monkeypatch.setattr(pipeline, "gather_texts", gather)


def checked(path: Path, model: specee.Model) -> tuple[dict[str, bytes], dict[str, object]]:
    """Tensors and notes of a file that is whole."""
    read_speculator(path, model.config, fingerprint(model.config, model.checkpoint.norms()))
    with safetensors.safe_open(path, framework="numpy") as file:
        tensors = {name: file.get_tensor(name).tobytes() for name in file.keys()}  # noqa: SIM118
        return tensors, json.loads(file.metadata()["fit"])


def test_a_stage_has_its_share_of_what_is_left(tmp_path: Path) -> None:
    clock = Clock()
    table = Timetable(1000.0, tmp_path / "t.json", clock)
    texts = table.begin("texts")
    clock.now += 399
    assert not texts.over()
    assert texts.over(needs=2.0)
    assert texts.over(share=0.5)
    assert texts.progress(1, 100) == pytest.approx(0.9975)
    assert texts.progress(1, 1) == 1.0
    clock.now += 1
    assert texts.over()
    texts.close(700, 1000)
    # Nothing was to be done for states: the rest have their time too.
    drafter = table.begin("drafter")
    assert drafter.left() == pytest.approx(600 * 28 / (28 + 3 + 6 + 6 + 5))
    clock.now += 6000
    late = table.begin("exits")
    assert late.over()
    assert late.left() == 0
    assert table.cut_short() == {"texts": [700, 1000]}


def test_what_was_spent_before_a_kill_counts(tmp_path: Path) -> None:
    path, clock = tmp_path / "t.json", Clock()
    first = Timetable(1000.0, path, clock)
    pace = first.begin("texts")
    clock.now += 100
    assert not pace.over()
    clock.now += 50_000  # killed; nobody worked
    second = Timetable(1000.0, path, clock)
    assert second.spent() == pytest.approx(100)
    pace = second.begin("texts")
    assert pace.left() == pytest.approx(300)
    pace.close(5, 9, 7)
    third = Timetable(1000.0, path, clock)
    assert third.begin("texts").over()
    assert third.begin("texts").number == 7
    assert third.cut_short() == {"texts": [5, 9]}
    path.write_text('{"spent": ')
    with pytest.raises(CheckpointError, match="timetable"):
        Timetable(1000.0, path, clock)


def test_without_a_bound_nothing_is_over_and_nothing_written(tmp_path: Path) -> None:
    clock = Clock()
    table = Timetable(None, tmp_path / "t.json", clock)
    pace = table.begin("drafter")
    clock.now += 1e9
    assert not pace.over(needs=1e9)
    assert pace.progress(1, 4) == 0.25
    pace.close(1, 4)
    assert table.cut_short() == {}
    assert not list(tmp_path.iterdir())


def test_time_enough_changes_nothing(model: specee.Model, tmp_path: Path) -> None:
    model.latency.table()
    fit(model, PLAN, tmp_path / "a", tmp_path / "work-a", clock=Clock())
    fit(model, replace(PLAN, minutes=None), tmp_path / "b", tmp_path / "work-b")
    assert checked(tmp_path / "a", model)[0] == checked(tmp_path / "b", model)[0]


def test_no_time_at_all_still_makes_a_file(model: specee.Model, tmp_path: Path, long_report: None) -> None:
    clock = Clock()

    def tell(*_: object) -> None:
        clock.now += 60.0

    plan = replace(PLAN, tokens=100_000, minutes=0.5)
    report = fit(model, plan, tmp_path / "a", tmp_path / "work", tell, clock)
    tensors, notes = checked(tmp_path / "a", model)
    assert set(report.cut_short) >= {"texts", "drafter", "report", "adapters", "exits"}
    assert notes["report"]["cut_short"] == report.cut_short  # type: ignore[index]
    assert notes["plan"]["minutes"] == 0.5  # type: ignore[index]
    done, total = report.cut_short["drafter"]
    assert done == 1, "one batch"
    states_done, texts = report.cut_short.get("states", (1, 1))
    assert notes["trained"] == 2 * report.tokens * states_done // texts * done // total
    assert report.adapters == ()
    assert report.exits is None
    assert {name.split(".")[0] for name in tensors} == {"vocabulary", "drafter"}
    assert np.isfinite(report.losses).all()


SECONDS = {"texts": 20.0, "states": 10.0, "drafter": 20.0, "report": 5.0, "adapters": 9.0, "exits": 4.0,
           "predictors": 3.0, "questions": 4.0, "calibration": 2.0}  # fmt: skip
"""What one piece of each stage takes."""


@pytest.mark.parametrize(
    "killed_at",
    [pytest.param(stage, marks=[pytest.mark.slow]) for stage in ("states", "drafter")]
    + ["adapters", "choosing", "calibration"],
)
def test_a_bounded_run_ends_in_time_also_when_it_was_killed(
    killed_at: str, model: specee.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, long_report: None
) -> None:
    monkeypatch.setattr(block, "_SAVE_EVERY", 2)
    monkeypatch.setattr(states, "_CHUNK", 4)
    clock, plan = Clock(), replace(PLAN, tokens=4000, minutes=8.0)
    begin, killed, trained = clock.now, False, []

    def tell(stage: str, done: int, total: int) -> None:
        clock.now += SECONDS.get(stage, 1.0)
        if stage == "drafter":
            trained.append(done)
        if stage == killed_at and done >= (0 if stage == "calibration" else 2):
            kill()

    def kill() -> None:
        nonlocal killed
        if not killed:
            killed = True
            raise Killed

    if killed_at == "choosing":  # adapters are trained and judged, and their stage is closed
        chosen = adapters._chosen
        monkeypatch.setattr(adapters, "_chosen", lambda *given: (kill(), chosen(*given))[1])
    with pytest.raises(Killed):
        fit(model, plan, tmp_path / "a", tmp_path / "work", tell, clock)
    report = fit(model, plan, tmp_path / "a", tmp_path / "work", tell, clock)
    tensors, _ = checked(tmp_path / "a", model)
    assert report.seconds <= 8 * 60 + max(SECONDS.values())
    assert clock.now - begin <= 8 * 60 + 2 * max(SECONDS.values()), "what the first run spent counts"
    assert report.cut_short["drafter"][0] < report.cut_short["drafter"][1]
    assert "exits.layers" in tensors
    assert len(report.adapters) > 0
    assert report.cut_short["adapters"][0] > 0
    assert len(report.losses_by_threshold) == len(THRESHOLDS)
    if killed_at == "adapters":
        assert trained == sorted(set(trained)), "what was trained is not trained again"
    done = clock.now
    again = fit(model, plan, tmp_path / "b", tmp_path / "work", tell, clock)
    assert checked(tmp_path / "b", model)[0] == tensors, "a run that is over is the same again"
    assert replace(again, seconds=report.seconds) == report
    assert clock.now - done < 60


@pytest.mark.parametrize(("minutes", "calibrated"), [(60.0, True), (8.0, False)])
def test_few_generations_are_calibrated_on_in_time_or_not_at_all(
    minutes: float, calibrated: bool, model: specee.Model, tmp_path: Path
) -> None:
    clock, threshold, seen = Clock(), 40.0, []

    def tell(stage: str, done: int, total: int) -> None:
        clock.now += threshold if stage == "calibration" else SECONDS.get(stage, 1.0)
        if stage == "calibration":
            seen.append(done)

    plan = replace(PLAN, generations=8, adapter_samples=0, minutes=minutes)
    report = fit(model, plan, tmp_path / "a", tmp_path / "work", tell, clock)
    assert report.seconds <= 60 * minutes + threshold
    assert bool(report.losses_by_threshold) == calibrated
    assert seen == list(range(len(THRESHOLDS) if calibrated else len(seen)))
    assert len(seen) > 0
    assert report.cut_short.get("calibration") == (None if calibrated else [0, 8])
    again = fit(model, plan, tmp_path / "b", tmp_path / "work", tell, clock)
    assert again.cut_short == report.cut_short
    assert checked(tmp_path / "b", model)[0] == checked(tmp_path / "a", model)[0]


def test_sizes() -> None:
    assert bytes_of("512MB") == bytes_of("0.5 gb") == bytes_of(str(1 << 29)) == bytes_of(1 << 29)
    for wrong in ("", "much", "-1", "0", "1.5.2GB", 0, -5, True):
        with pytest.raises(ConfigurationError, match="512MB"):
            bytes_of(wrong)


def test_limits_are_as_large_as_fit() -> None:
    config = replace(BASE, vocab_size=50_000, hidden_size=512, intermediate_size=1536, num_layers=20)
    footprint, usual = Footprint(config, 3, 2), Limits(batch=1024)
    assert within(footprint, None, 1024) == usual
    most, least = footprint.most(usual), footprint.most(replace(LEAST))
    assert least < most
    assert within(footprint, most, 1024) == usual
    assert within(footprint, least, 1024).batch >= LEAST.batch
    before = within(footprint, least, 1024)
    for memory in np.linspace(least, most, 9).astype(int).tolist():
        found = within(footprint, memory, 1024)
        assert footprint.most(found) <= memory
        assert all(a <= b for a, b in zip(vars(before).values(), vars(found).values(), strict=True))
        before = found
    assert before == usual
    with pytest.raises(ConfigurationError, match=f"takes {least} bytes at least"):
        within(footprint, least - 1, 1024)


def test_little_memory_makes_a_file_too(
    model: specee.Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    least = Footprint(model.config, 3, 2).most(LEAST)
    plan = replace(PLAN, minutes=None, exit_samples=0, batch_tokens=1024, memory=least)
    fit(model, plan, tmp_path / "a", tmp_path / "work")
    assert checked(tmp_path / "a", model)[1]["plan"]["memory"] == least  # type: ignore[index]
    words = ["fit", "--model", str(model.checkpoint.source), "--output", str(tmp_path / "c"), "--memory"]
    assert main([*words, "1KB"]) == 2
    assert f"{least} bytes" in capsys.readouterr().err
    assert main([*words, "much"]) == 2
    assert "512MB" in capsys.readouterr().err
    with pytest.raises(ConfigurationError, match="minutes=0"):
        specee.fit(model, tmp_path / "c", minutes=0)


@pytest.mark.parametrize("minutes", [0.1, 20.0])
def test_texts_take_no_longer_than_their_time_and_one_shard(
    minutes: float, model: specee.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each time that a text ends takes a second."""
    clock, together = Clock(), []
    go_on = Writer._until_some_end

    def slow(self: Writer, running: Sequence[ActiveSequence]) -> list[ActiveSequence]:
        clock.now += 1.0
        together.append(len(running))
        return go_on(self, running)

    monkeypatch.setattr(Writer, "_until_some_end", slow)
    written: list[float] = []
    write = Corpus.write

    def watched(self: Corpus, writer: Writer, wanted: Callable[[int], bool]) -> Iterator[bool]:
        for some in write(self, writer, wanted):
            written.append(clock.now)
            yield some

    monkeypatch.setattr(Corpus, "write", watched)
    plan = replace(PLAN, tokens=100_000, minutes=minutes)
    table = Timetable(60 * minutes, tmp_path / "table.json", clock)
    begin = clock.now
    fitted, held_out = gather_texts(Run(model, plan, tmp_path, lambda *_: None, table, Limits()))
    shards = len(list(tmp_path.glob("corpus-*.npz")))
    size = max(8, int(minutes))
    assert len(fitted) + len(held_out) <= size * shards
    assert max(together) == size, "a shard, and no more"
    first, last = written[0] - begin, written[-1] - begin
    assert table.cut_short()["texts"][1] == 100_000
    if minutes < 1:
        assert shards == 1
        return
    assert shards > 5
    assert last <= 60 * minutes * 0.4 + 2 * first
    # The first shard comes to its end alone: it says how long they take.
    again = next(at for at in range(1, len(together)) if together[at - 1] < size == together[at])
    between = together[again : -3 * size]
    assert between.count(size) > 0.9 * len(between) > 100, "no gap between others"
