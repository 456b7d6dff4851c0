"""``specee fit`` on tiny models: a file from nothing but the model, the same after any kill."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import torch

import specee
from specee.cli import main
from specee.errors import CheckpointError, ConfigurationError
from specee.fitting import adapters, block, states, vocabulary
from specee.fitting.calibration import THRESHOLDS, Calibrator
from specee.fitting.own_texts import read_documents
from specee.fitting.pipeline import fit
from specee.fitting.plan import Plan
from specee.fitting.training import Training
from specee.models.speculator import fingerprint, read_speculator
from tests.tiny_models import FAMILIES, tiny_folder

SHORT = {
    "adapter_samples": 1200,
    "exit_samples": 300,
    "exit_epochs": 2,
    "generations": 5,
    "generation_tokens": 6,
}
PLAN = Plan(tokens=1500, batch_tokens=256, **SHORT)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder("llama", tmp_path_factory.mktemp("tiny"), seed=3)


class Killed(BaseException):
    """Stands for a signal that nobody catches."""


def contents(path: Path) -> tuple[dict[str, bytes], dict[str, Any]]:
    with safetensors.safe_open(path, framework="numpy") as file:
        tensors = {name: file.get_tensor(name).tobytes() for name in file.keys()}  # noqa: SIM118
        said = json.loads(file.metadata()["fit"])
    report = said.get("report", {})
    report.pop("seconds", None)
    for one in report.get("adapters", ()):  # times are measured anew in every run
        for head in (one["own"], one["trimmed"], *one["adapted"].values()):
            head.pop("speed")
    return tensors, said


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family(family: str, tmp_path: Path) -> None:
    source = tiny_folder(family, tmp_path, seed=5)
    output = tmp_path / "made.safetensors"
    model = specee.load(source, threads=1)
    report = fit(model, Plan(tokens=1200, batch_tokens=256, **SHORT), output, tmp_path / "work")
    assert report.tokens >= 500
    assert 0 < report.coverage <= 1
    assert len(report.agreement) == 3
    assert all(np.isfinite(report.losses))
    with_it = specee.load(source, threads=1, speculator=output)
    prompt = with_it.encode("The quick brown fox")
    for policy in ("drafter:threshold=0.0", "auto"):
        result = with_it.generate(prompt, max_new_tokens=24, policy=policy, return_dict=True)
        assert result.tokens == model.generate(prompt, max_new_tokens=24, return_dict=True).tokens
        assert policy == "auto" or result.statistics.acceptance.drafted > 5


def test_what_is_fitted_learns(folder: Path, tmp_path: Path) -> None:
    """The loss falls, and drafts of the model's own texts are right far more often than chance has it."""
    model = specee.load(folder, threads=2)
    losses: list[float] = []
    step = Training.step

    def watched(self: Training, batch: Any) -> list[float]:
        found = step(self, batch)
        losses.append(found[0])
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Training, "step", watched)
        plan = Plan(tokens=20_000, batch_tokens=512, epochs=6, learning_rate=3e-3, **SHORT)
        report = fit(model, plan, tmp_path / "made.safetensors", tmp_path / "work")
    assert np.mean(losses[-5:]) < np.log(model.config.vocab_size) - 0.1, "better than not knowing anything"
    assert np.mean(losses[:5]) > np.log(model.config.vocab_size)
    assert report.agreement[0] > 10 / model.config.vocab_size


KILLED_AT = {
    "texts": 1,
    "states": 1,
    "drafter": 5,
    "report": 0,
    "adapters": 3,
    "adapters judged": 0,
    "exits": 0,
    "predictors": 1,
    "calibration": 2,
}


@pytest.mark.parametrize(
    "stage",
    [
        pytest.param(
            stage,
            marks=[pytest.mark.slow] if stage not in ("texts", "drafter", "adapters", "calibration") else [],
        )
        for stage in KILLED_AT
    ],
)
def test_a_run_that_was_killed_comes_to_the_same_file(folder: Path, tmp_path: Path, stage: str) -> None:
    torch.manual_seed(99)  # nothing depends on it
    model = specee.load(folder, threads=1)
    model.latency.table()  # times decide what pays: they are measured once here
    whole, output = tmp_path / "whole.safetensors", tmp_path / "made.safetensors"
    fit(model, PLAN, whole, tmp_path / "whole")
    work = tmp_path / "work"
    seen = []

    def kill(name: str, done: int, total: int) -> None:
        seen.append((name, done))
        if name == stage and done >= KILLED_AT[name]:
            raise Killed

    measured: list[float] = []
    losses_of = Calibrator.losses_of

    def counted(self: Calibrator, prompts: Any, threshold: float) -> Any:
        measured.append(threshold)
        return losses_of(self, prompts, threshold)

    def again(name: str, done: int, total: int) -> None:
        if stage == "drafter":
            assert name != "drafter" or done > 4, "what was trained is not trained again"
        if stage.startswith("adapters"):
            assert name != "adapters" or done > 2

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(block, "_SAVE_EVERY", 2)
        patch.setattr(adapters, "_SAVE_EVERY", 2)
        patch.setattr(states, "_CHUNK", 4)
        with pytest.raises(Killed):
            fit(model, PLAN, output, work, kill)
        assert not output.exists()
        names = [path.name for path in work.rglob("*") if path.is_file()]
        assert not [name for name in names if ".part" in name]
        assert ("drafter-0.safetensors" in names) is (stage not in ("texts", "states"))
        kept = len([name for name in names if name.startswith("states")])
        assert kept == 1 if stage == "states" else (kept > 1) is (stage == "drafter")
        patch.setattr(Calibrator, "losses_of", counted)
        fit(model, PLAN, output, work, again)
    assert measured == list(THRESHOLDS[2 if stage == "calibration" else 0 :])
    assert contents(output) == contents(whole)
    left = [name for kind in ("states-*", "adapters-*.safetensors") for name in work.rglob(kind)]
    assert not left, "what is large is not left behind"


def test_a_run_that_goes_on_keeps_its_vocabulary(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What pays is measured, and measured otherwise the next time."""
    model = specee.load(folder, threads=1)
    fit(model, PLAN, tmp_path / "a", tmp_path / "work")

    def few(*_: object) -> vocabulary.Vocabulary:
        return vocabulary.Vocabulary(np.arange(5), 0.5)

    monkeypatch.setattr(vocabulary, "choose", few)
    assert fit(model, PLAN, tmp_path / "b", tmp_path / "work").vocabulary > 5
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert fit(model, PLAN, tmp_path / "c", tmp_path / "other").vocabulary == 5


def test_another_plan_makes_another_file(folder: Path, tmp_path: Path) -> None:
    """The negative control."""
    model = specee.load(folder, threads=1)
    for name, plan in (("a", PLAN), ("b", Plan(tokens=1500, batch_tokens=256, seed=1, **SHORT))):
        fit(model, plan, tmp_path / name, tmp_path / f"work-{name}")
    assert contents(tmp_path / "a")[0] != contents(tmp_path / "b")[0]


def test_snapshots_are_left_on_the_way(folder: Path, tmp_path: Path) -> None:
    model = specee.load(folder, threads=1)
    plan = Plan(tokens=1500, batch_tokens=256, snapshots=2, **SHORT)
    report = fit(model, plan, tmp_path / "made.safetensors", tmp_path / "work")
    trained = sorted(int(path.stem.split("-")[1]) for path in tmp_path.glob("made-*.safetensors"))
    assert len(trained) == 2
    assert trained[0] == pytest.approx(report.tokens * 2 / 4, rel=0.2)
    assert trained[1] == pytest.approx(report.tokens * 2 / 2, rel=0.2)
    mark = fingerprint(model.config, model.checkpoint.norms())
    found = [
        read_speculator(tmp_path / f"made{which}.safetensors", model.config, mark)
        for which in (f"-{trained[0]}", f"-{trained[1]}", "")
    ]
    assert [contents(tmp_path / f"made-{count}.safetensors")[1]["trained"] for count in trained] == trained
    first, second, last = (one.drafter.q.tobytes() for one in found if one.drafter is not None)
    assert len({first, second, last}) == 3
    fit(model, PLAN, tmp_path / "plain.safetensors", tmp_path / "other")
    assert contents(tmp_path / "made.safetensors")[0] == contents(tmp_path / "plain.safetensors")[0]


def test_damaged_files_of_an_earlier_run_are_named(folder: Path, tmp_path: Path) -> None:
    model = specee.load(folder, threads=1)
    work = tmp_path / "work"
    fit(model, PLAN, tmp_path / "made.safetensors", work)
    (own,) = work.iterdir()
    training = own / "drafter-0.safetensors"
    whole = training.read_bytes()
    training.write_bytes(whole[:-100])
    with pytest.raises(CheckpointError, match=training.name):
        fit(model, PLAN, tmp_path / "again.safetensors", work)
    training.write_bytes(whole)
    with pytest.raises(CheckpointError, match="another run"):
        fit(
            model,
            Plan(tokens=1500, batch_tokens=256, learning_rate=1e-4, **SHORT),
            tmp_path / "again.safetensors",
            work,
        )
    assert not (tmp_path / "again.safetensors").exists()
    assert list(own.glob("corpus-0-*.npz"))


def test_a_file_for_another_model_is_refused(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "made.safetensors"
    fit(specee.load(folder, threads=1), PLAN, output, tmp_path / "work")
    other = tiny_folder("llama", tmp_path, seed=4)
    with pytest.raises(CheckpointError, match="fingerprint"):
        specee.load(other, speculator=output)
    model = specee.load(folder, threads=1)
    mark = fingerprint(model.config, model.checkpoint.norms())
    content = output.read_bytes()
    for damaged in (content[:-3], content[: len(content) // 2], b"", content[:1000]):
        output.write_bytes(damaged)
        with pytest.raises(CheckpointError):
            read_speculator(output, model.config, mark)


def test_the_command(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output, work = tmp_path / "made.safetensors", tmp_path / "work"
    words = [
        "fit",
        "--model",
        str(folder),
        "--tokens",
        "600",
        "--generations",
        "4",
        "--work",
        str(work),
        "--output",
        str(output),
        "--plot",
        str(tmp_path / "report.svg"),
    ]
    assert main([*words, "--threads", "1"]) == 0
    said = capsys.readouterr()
    assert "agreement" in said.out
    assert str(output) in said.out
    assert "texts: " in said.err
    assert (tmp_path / "report.svg").exists()
    use = ["--speculator", str(output), "--policy", "drafter", "--stats", "--max-new-tokens", "8"]
    assert main(["generate", "Hello", "--model", str(folder), *use]) == 0
    assert "drafter" in capsys.readouterr().err
    assert main([*words[:-4], "--output", str(tmp_path / "missing" / "made.safetensors")]) == 2
    assert "--output" in capsys.readouterr().err
    assert main(["fit", "--model", str(folder), "--tokens", "0", "--output", str(output)]) == 2
    assert "tokens=0" in capsys.readouterr().err


def test_texts_of_ones_own(folder: Path, tmp_path: Path) -> None:
    """They are what is fitted on, each once, and another file is another run."""
    model = specee.load(folder, threads=1)
    corpus, work = tmp_path / "own.jsonl", tmp_path / "work"
    words = ["The quick brown fox jumps over lazy dogs", "Numbers like 12 and 17 are primes or not"] * 2
    lines = [json.dumps(word) for word in words] + [
        json.dumps({"text": f"{word} {index}. " * 9}) for index in range(9) for word in words[:2]
    ]
    chat = [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Hello!"}]
    corpus.write_text("\n".join([*lines, "", json.dumps({"messages": chat})]))
    documents = read_documents(corpus, model.tokenizer)
    assert len(documents) == len(lines) - 2 + 1, "none comes twice"
    read = [piece for document in documents for piece in document.pieces]
    assert read[0].tokens.tolist() == model.tokenizer.encode(words[0])
    assert read[-1].tokens.tolist() == model.tokenizer.apply_chat_template(
        chat, add_generation_prompt=False, return_dict=False
    )
    assert max(len(text.tokens) for text in read) <= 512
    report = specee.fit(
        model, tmp_path / "a.safetensors", tokens=100_000, corpus=corpus, work=work, generations=4
    )
    tokens = sum(len(text.tokens) - 1 for text in read)
    assert tokens * 0.7 < report.tokens < tokens
    assert not list(work.rglob("corpus*")), "the model writes none"
    assert contents(tmp_path / "a.safetensors")[1]["plan"]["corpus"] == "own.jsonl"
    few = specee.fit(
        model, tmp_path / "b.safetensors", tokens=50, corpus=corpus, work=tmp_path / "few", generations=4
    )
    assert 50 <= few.tokens < report.tokens
    corpus.write_text(corpus.read_text().replace("fox", "cat"))
    with pytest.raises(CheckpointError, match="another run"):
        specee.fit(model, tmp_path / "a.safetensors", tokens=100_000, corpus=corpus, work=work, generations=4)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('"fine"\n{"txt": "wrong"}', "line 2.*neither"),
        ("[1, 2]", "line 1.*neither"),
        ('""', "line 1.*neither"),
        ("no json", "line 1.*JSON"),
        ('{"messages": [{"role": "nobody"}]}', "line 1"),
        ("\n\n", "no text"),
        (b"\xff\xfe", "cannot be read"),
    ],
)
def test_wrong_texts_name_their_line(content: str | bytes, words: str, folder: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "own.jsonl"
    corpus.write_bytes(content if isinstance(content, bytes) else content.encode())
    tokenizer = specee.load(folder, threads=1).tokenizer
    with pytest.raises(ConfigurationError, match=words):
        read_documents(corpus, tokenizer)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_documents(tmp_path / "missing.jsonl", tokenizer)


def test_answers_to_a_question_and_pieces_of_a_text_stay_together(folder: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "own.jsonl"
    asked = {"role": "user", "content": "What\u2028is it?"}
    chats = [[asked, {"role": "assistant", "content": answer}] for answer in ("This.", "That.")]
    long = "word " * 3000
    lines = [{"messages": chats[0]}, {"messages": chats[1]}, {"messages": [asked]}, long]
    corpus.write_text("\n".join([json.dumps(line, ensure_ascii=False) for line in lines]))
    first, second, third, text = read_documents(corpus, specee.load(folder, threads=1).tokenizer)
    assert first.key == second.key == third.key != text.key
    assert first.pieces[0].tokens.tolist() != second.pieces[0].tokens.tolist()
    assert len(text.pieces) > 2
    assert {len(piece.tokens) for piece in text.pieces[:-1]} == {512}


def test_one_text_is_too_few(folder: Path, tmp_path: Path) -> None:
    """It cannot be fitted on and held out."""
    corpus = tmp_path / "own.jsonl"
    corpus.write_text('"There is only this one text."')
    model = specee.load(folder, threads=1)
    with pytest.raises(ConfigurationError, match="two are needed"):
        specee.fit(model, tmp_path / "a.safetensors", corpus=corpus, work=tmp_path / "work")


def test_other_models_have_folders_of_their_own(folder: Path, tmp_path: Path) -> None:
    """The same work folder, the same shape: nothing of one gets into the other's file."""
    other = tiny_folder("llama", tmp_path / "other", seed=4)
    work, alone = tmp_path / "work", tmp_path / "alone"
    for name, source, weights, where in (
        ("a", folder, "fp32", work),
        ("b", other, "fp32", work),
        ("c", folder, "int8", work),
        ("d", other, "fp32", alone),
        ("e", folder, "int8", alone),
    ):
        model = specee.load(source, weights=weights, threads=1)  # type: ignore[arg-type]
        fit(model, PLAN, tmp_path / name, where)
    assert contents(tmp_path / "b") == contents(tmp_path / "d")
    assert contents(tmp_path / "c") == contents(tmp_path / "e")
    assert len({str(contents(tmp_path / name)[0]) for name in "abc"}) == 3


def test_what_cannot_be_written_is_told_of_first(folder: Path, tmp_path: Path) -> None:
    model = specee.load(folder, threads=1)
    for output in (tmp_path / "missing" / "made.safetensors", tmp_path):
        with pytest.raises(ConfigurationError, match=re.escape(str(output))):
            specee.fit(model, output, work=tmp_path / "work")
    assert not (tmp_path / "work").exists()


def test_a_disk_without_room_takes_longer_and_gives_the_same(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = specee.load(folder, threads=1)
    fit(model, PLAN, tmp_path / "a", tmp_path / "work-a")
    monkeypatch.setattr(states, "_SPARE", 1 << 60)
    fit(model, PLAN, tmp_path / "b", tmp_path / "work-b")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
