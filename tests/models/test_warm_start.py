"""Training on from a speculator file: its block and vocabulary, on other texts than it has seen."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
import safetensors
import torch

import specee
from specee.cli import main
from specee.errors import CheckpointError, ConfigurationError
from specee.fitting import block, entry
from specee.fitting.batches import Batch
from specee.fitting.drafter import Drafter, Shape
from specee.fitting.pipeline import fit
from specee.fitting.plan import Plan
from specee.fitting.training import Training
from specee.models import packaged
from specee.models.speculator import Speculator, fingerprint, read_speculator, write_speculator
from tests.tiny_models import tiny_folder

PLAN = Plan(tokens=1500, batch_tokens=256, adapter_samples=0, exit_samples=0)


class Step(NamedTuple):
    """A batch: its losses, the learning rate, and a matrix of the block as it was before."""

    losses: list[float]
    rate: float
    q: npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> specee.Model:
    return specee.load(tiny_folder("llama", tmp_path_factory.mktemp("tiny"), seed=3), threads=1)


@pytest.fixture(scope="module")
def first(model: specee.Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("first")
    fit(model, replace(PLAN, layers=(1, 2)), folder / "first.safetensors", folder / "work")
    return folder / "first.safetensors"


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[Step]:
    """All that are taken."""
    found: list[Step] = []
    step = Training.step

    def counted(self: Training, batch: Batch) -> list[float]:
        q = self.drafter.parts().q.copy()
        made = step(self, batch)
        found.append(Step(made, self._optimizer.param_groups[0]["lr"], q))
        return made

    monkeypatch.setattr(Training, "step", counted)
    return found


def read(model: specee.Model, path: Path) -> Speculator:
    return read_speculator(path, model.config, fingerprint(model.config, model.checkpoint.norms()))


def notes(path: Path) -> dict[str, Any]:
    with safetensors.safe_open(path, framework="numpy") as file:
        said: dict[str, Any] = json.loads(file.metadata()["fit"])
    return said


def test_it_goes_on_from_where_the_file_is(
    model: specee.Model, first: Path, tmp_path: Path, steps: list[Step]
) -> None:
    output = tmp_path / "second.safetensors"
    fit(model, replace(PLAN, seed=1, warm_start=str(first), snapshots=1), output, tmp_path / "work")
    warm = list(steps)
    steps.clear()
    fit(model, replace(PLAN, seed=1, layers=(1, 2)), tmp_path / "cold.safetensors", tmp_path / "work-cold")
    assert warm[0].losses[0] < steps[0].losses[0], "it has learnt something before"
    assert {len(one.losses) for one in warm} == {2}, "unrolled from the first batch on"
    assert {len(one.losses) for one in steps} == {1, 2}
    assert max(one.rate for one in warm) <= 0.5 * max(one.rate for one in steps) * 1.01
    before, after = read(model, first), read(model, output)
    assert before.vocabulary is not None
    assert after.vocabulary is not None
    assert before.vocabulary.tolist() == after.vocabulary.tolist()
    assert before.drafter is not None
    assert after.drafter is not None
    assert before.drafter.layers == after.drafter.layers == (1, 2)
    assert before.drafter.q.tobytes() == warm[0].q.tobytes()
    assert before.drafter.q.tobytes() != after.drafter.q.tobytes()
    old, new = notes(first), notes(output)
    assert new["before"] == old
    assert new["trained"] == old["trained"] + 2 * new["report"]["tokens"]
    assert new["plan"]["warm_start"] == first.name, "no folders of whoever made it"
    (between,) = tmp_path.glob("second-*.safetensors")
    assert old["trained"] < notes(between)["trained"] < new["trained"]
    assert between.stem == f"second-{notes(between)['trained']}"
    assert notes(between)["before"] == old


def test_what_is_made_of_it_drafts(model: specee.Model, first: Path, tmp_path: Path) -> None:
    output = tmp_path / "second.safetensors"
    plan = replace(PLAN, seed=1, warm_start=str(first), adapter_samples=600, exit_samples=300, exit_epochs=2)
    report = fit(model, replace(plan, generations=4, generation_tokens=6), output, tmp_path / "work")
    assert report.exits is not None
    assert report.adapters
    with_it = specee.load(model.checkpoint.source, threads=1, speculator=output)
    prompt = with_it.encode("The quick brown fox")
    result = with_it.generate(prompt, max_new_tokens=24, policy="drafter:threshold=0.0", return_dict=True)
    assert result.tokens == model.generate(prompt, max_new_tokens=24, return_dict=True).tokens
    assert result.statistics.acceptance.drafted > 5


def test_texts_that_were_seen_are_refused(model: specee.Model, first: Path, tmp_path: Path) -> None:
    plan = replace(PLAN, warm_start=str(first))
    with pytest.raises(ConfigurationError, match=r"seed=0: .* give another one, such as 1"):
        fit(model, plan, tmp_path / "made", tmp_path / "work")
    second, based = tmp_path / "second.safetensors", tmp_path / "based.safetensors"
    fit(model, replace(plan, seed=1, tokens=700), second, tmp_path / "work")
    # A fit with a base trains no block: its seed is free.
    fit(model, replace(PLAN, base=str(second), seed=2, tokens=700), based, tmp_path / "work")
    second = based
    for seed in (0, 1):
        with pytest.raises(ConfigurationError, match=f"seed={seed}: .* such as 2"):
            fit(model, replace(plan, seed=seed, warm_start=str(second)), tmp_path / "m", tmp_path / "work")
    corpus = tmp_path / "texts.jsonl"
    corpus.write_text("".join(json.dumps({"text": f"The fox saw {n} dogs, {n}!"}) + "\n" for n in range(90)))
    fit(model, replace(plan, corpus=str(corpus)), tmp_path / "own.safetensors", tmp_path / "work-own")
    assert notes(tmp_path / "own.safetensors")["before"] == notes(first)


def test_a_run_that_was_killed_comes_to_the_same_file(
    model: specee.Model, first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def kill(stage: str, done: int, total: int) -> None:
        if stage == "drafter" and done >= 5:
            raise Killed

    monkeypatch.setattr(block, "_SAVE_EVERY", 2)
    plan = replace(PLAN, seed=1, warm_start=str(first))
    work, made = tmp_path / "work", tmp_path / "made.safetensors"
    with pytest.raises(Killed):
        fit(model, plan, made, work, kill)
    fit(model, plan, made, work)
    fit(model, plan, tmp_path / "whole.safetensors", tmp_path / "other")
    for one, other in zip(tensors(made), tensors(tmp_path / "whole.safetensors"), strict=True):
        assert one == other
    assert sorted(path.name for path in work.rglob("drafter-*")) == sorted(
        path.name for path in (tmp_path / "other").rglob("drafter-*")
    )


def test_another_block_is_another_training(model: specee.Model, first: Path, tmp_path: Path) -> None:
    """In the same folder, of the same texts: nothing of the one is the other's."""
    corpus = tmp_path / "some.jsonl"
    corpus.write_text("".join(json.dumps({"text": f"A fox and {n} dogs, {n}."}) + "\n" for n in range(50)))
    made = [tmp_path / f"{name}.safetensors" for name in ("second", "third", "alone")]
    for minutes in (None, 50.0):
        plan = replace(PLAN, corpus=str(corpus), minutes=minutes)
        work, other = tmp_path / f"work {minutes}", tmp_path / f"other {minutes}"
        fit(model, replace(plan, warm_start=str(first)), made[0], work)
        fit(model, replace(plan, warm_start=str(made[0])), made[1], work)
        fit(model, replace(plan, warm_start=str(made[0])), made[2], other)
        assert tensors(made[1]) == tensors(made[2]) != tensors(made[0])
        assert notes(made[1])["trained"] == 2 * notes(made[0])["trained"] - notes(first)["trained"]
        # Also where a file takes the place of the one that it was made from.
        shutil.copy(made[0], tmp_path / "own.safetensors")
        own = tmp_path / "own.safetensors"
        for _ in range(2):
            fit(model, replace(plan, warm_start=str(own)), own, work)
        assert tensors(own) != tensors(made[1])


def test_notes_of_others_are_no_obstacle(model: specee.Model, first: Path, tmp_path: Path) -> None:
    given, made = tmp_path / "given.safetensors", tmp_path / "made.safetensors"
    mark = fingerprint(model.config, model.checkpoint.norms())
    for said in ("no json", "[1]", '{"trained": null, "plan": {"seed": [0]}, "before": 3}', '{"plan": 7}'):
        write_speculator(given, read(model, first), mark, {"fit": said})
        report = fit(model, replace(PLAN, tokens=700, warm_start=str(given)), made, tmp_path / "work")
        assert notes(made)["trained"] == 2 * report.tokens


def tensors(path: Path) -> list[tuple[str, bytes]]:
    with safetensors.safe_open(path, framework="numpy") as file:
        return [(name, file.get_tensor(name).tobytes()) for name in sorted(file.keys())]


def test_a_block_without_a_vocabulary_of_its_own_is_trained_on(model: specee.Model, tmp_path: Path) -> None:
    """As those of published heads are: plain, and over the whole vocabulary."""
    torch.manual_seed(5)
    plain = Drafter(Shape(model.config, (model.config.num_layers,), plain=True))
    given, made = tmp_path / "plain.safetensors", tmp_path / "made.safetensors"
    mark = fingerprint(model.config, model.checkpoint.norms())
    write_speculator(given, Speculator(drafter=plain.parts()), mark)
    report = fit(model, replace(PLAN, warm_start=str(given)), made, tmp_path / "work")
    found = read(model, made)
    assert found.vocabulary is None
    assert found.drafter is not None
    assert found.drafter.plain
    assert report.coverage == 1.0
    assert not np.array_equal(found.drafter.q, plain.parts().q)
    assert report.history[-1] < report.history[0]
    assert notes(made)["trained"] == 2 * report.tokens
    assert notes(made)["before"] == {}, "a file that says nothing of how it was made"


def test_what_cannot_be_gone_on_from(model: specee.Model, first: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="give one of them"):
        replace(PLAN, base="a", warm_start="b")
    without = tmp_path / "words.safetensors"
    mark = fingerprint(model.config, model.checkpoint.norms())
    write_speculator(without, Speculator(vocabulary=np.arange(9)), mark)
    with pytest.raises(ConfigurationError, match=r"warm_start .*no drafter block"):
        fit(model, replace(PLAN, warm_start=str(without)), tmp_path / "made", tmp_path / "work")
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(first.read_bytes()[:-9])
    with pytest.raises(CheckpointError, match="no complete speculator file"):
        fit(model, replace(PLAN, warm_start=str(damaged)), tmp_path / "made", tmp_path / "work")
    assert not (tmp_path / "made").exists()
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize("how", ["python", "command"])
def test_the_packages_own_file(
    how: str,
    model: specee.Model,
    first: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    own = tmp_path / "own"
    own.mkdir()
    make: dict[str, Callable[[], Any]] = {
        "python": lambda: specee.fit(
            model, tmp_path / "made.safetensors", tokens=900, seed=1, warm_start=True, work=tmp_path / "work",
            generations=0, adapters=False,
        ),
        "command": lambda: main(
            [
                "fit", "--model", str(model.checkpoint.source),
                "--output", str(tmp_path / "made.safetensors"),
                "--tokens", "900", "--seed", "1", "--generations", "0", "--work", str(tmp_path / "work"),
                "--warm-start", "--no-adapters",
            ]
        ),
    }  # fmt: skip
    monkeypatch.setattr(entry, "packaged_file", lambda checkpoint: packaged.packaged_file(checkpoint, own))
    words = "no speculator file for this model comes with the package"
    if how == "python":
        with pytest.raises(ConfigurationError, match=words):
            make[how]()
    else:
        assert make[how]() == 2
        assert words in capsys.readouterr().err
    shutil.copy(first, own / "tiny.safetensors")
    make[how]()
    assert notes(tmp_path / "made.safetensors")["before"] == notes(first)
    assert notes(tmp_path / "made.safetensors")["plan"]["warm_start"] == "tiny.safetensors"
    assert notes(tmp_path / "made.safetensors")["report"]["adapters"] == []
    assert not read(model, tmp_path / "made.safetensors").adapters
