"""Contenders in processes of their own: the questions, the answers, and what fails."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest

import specee
from specee.backends import missing
from specee.bench.decode import contenders, worker
from specee.bench.decode.contenders import Contender, Setting
from specee.bench.decode.rounds import Rounds
from specee.integrations.stopwatch import Stopwatch
from tests.tiny_models import tiny_folder

PROMPT = [5, 6, 7, 8]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_folder("llama", tmp_path_factory.mktemp("model"), seed=1))


def counting(prompt: list[int], tokens: int, clock: Stopwatch) -> None:
    clock.put(np.array(prompt))
    for index in range(tokens):
        clock.put(np.array([index]))


def drafting(prompt: list[int], tokens: int, clock: Stopwatch) -> Rounds:
    """Ours: tokens come out one by one whatever the rounds, which it counts itself."""
    counting(prompt, tokens, clock)
    return Rounds(steps=2, rounds=1, tokens=tokens - 1, drafted=4, accepted=1, shares={"python": 1.0})


def short(prompt: list[int], tokens: int, clock: Stopwatch) -> None:
    counting(prompt, tokens - 1, clock)


def answers(
    monkeypatch: pytest.MonkeyPatch, run: contenders.Run, *questions: object
) -> list[dict[str, object]]:
    """What a worker with one contender says to these questions."""
    monkeypatch.setattr(contenders, "prepare", lambda name, setting: Contender(name, run, {"weights": "w"}))
    asked = io.StringIO("".join(json.dumps(question) + "\n" for question in questions))
    said = io.StringIO()
    worker.serve(asked, said, ["one"], Setting(None, 1, 64))
    return [json.loads(line) for line in said.getvalue().splitlines()]


def test_each_of_ours_has_a_process_and_a_library_shares_one() -> None:
    names = ["specee:bf16", "transformers", "specee:packed", "llama.cpp", "transformers:lookup"]
    assert worker.groups(names) == [
        ["specee:bf16"],
        ["transformers", "transformers:lookup"],
        ["specee:packed"],
        ["llama.cpp"],
    ]
    # What compiles has one to itself.
    assert worker.groups(["transformers:cuda", "transformers:cuda:static", "transformers:cuda:fp32"]) == [
        ["transformers:cuda", "transformers:cuda:fp32"],
        ["transformers:cuda:static"],
    ]


def test_a_question_a_line_an_answer_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    question = {"name": "one", "prompt": PROMPT, "tokens": 3}
    facts, found = answers(monkeypatch, counting, {"facts": ["one"]}, question)
    assert facts == {"one": {"weights": "w"}}
    assert found["tokens"] == [0, 1, 2]
    assert found["steps"] == 3


def test_what_was_drafted_comes_back_and_counts_the_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    question = {"name": "one", "prompt": PROMPT, "tokens": 3}
    (answer,) = answers(monkeypatch, drafting, question)
    found = worker.Sample.read(answer)
    assert found.steps == 2
    assert found.tokens == (0, 1, 2)
    assert found.rounds == Rounds(2, 1, 2, 4, 1, {"python": 1.0})
    (answer,) = answers(monkeypatch, counting, question)
    assert worker.Sample.read(answer).rounds is None


def test_too_few_tokens_are_an_error_and_the_worker_lives_on(monkeypatch: pytest.MonkeyPatch) -> None:
    question = {"name": "one", "prompt": PROMPT, "tokens": 3}
    first, second = answers(monkeypatch, short, question, {"facts": ["one"]})
    assert "made 2 tokens of 3" in str(first["error"])
    assert "one" in second


def test_what_is_known_later_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []

    def run(prompt: list[int], tokens: int, clock: Stopwatch) -> None:
        taken.append(tokens)
        counting(prompt, tokens, clock)

    made = Contender("one", run, {"weights": "w"}, later=lambda: {"taken": len(taken)})
    monkeypatch.setattr(contenders, "prepare", lambda name, setting: made)
    asked = [{"facts": ["one"]}, {"name": "one", "prompt": PROMPT, "tokens": 3}, {"facts": ["one"]}]
    said = io.StringIO()
    questions = io.StringIO("".join(json.dumps(question) + "\n" for question in asked))
    worker.serve(questions, said, ["one"], Setting(None, 1, 64))
    found = [json.loads(line) for line in said.getvalue().splitlines()]
    assert found[0] == {"one": {"weights": "w", "taken": 0}}
    assert found[2] == {"one": {"weights": "w", "taken": 1}}


def test_a_worker_gives_the_tokens_of_the_model(folder: str) -> None:
    if reason := missing("cpu"):
        pytest.skip(reason)
    lookup = "prompt-lookup:speculation_length=2"
    names = ["specee:fp32", "transformers:fp32", f"specee:fp32:{lookup}"]
    with worker.started(names, folder, threads=1, capacity=64) as loaded:
        samples = [contender.sample(PROMPT, 6) for contender in loaded]
        assert [contender.ours for contender in loaded] == [True, False, True]
        assert loaded[0].facts["weights"] == "fp32"
        assert loaded[2].facts["policy"] == lookup
    wanted = specee.load(folder, weights="fp32").generate(
        [PROMPT], max_new_tokens=6, do_sample=False, eos_token_id=[]
    )
    assert list(samples[0].tokens) == wanted[0][len(PROMPT) :]
    assert samples[1].tokens == samples[0].tokens == samples[2].tokens
    assert samples[1].rounds is None
    plain, drafted = samples[0].rounds, samples[2].rounds
    assert plain is not None
    assert drafted is not None
    assert (plain.steps, plain.rounds, plain.tokens, plain.drafted) == (6, 5, 5, 0)
    assert drafted.tokens == 5
    assert sum(drafted.shares.values()) == pytest.approx(1.0)


def test_errors_in_the_process_come_back_as_errors(folder: str, tmp_path: Path) -> None:
    if reason := missing("cpu"):
        pytest.skip(reason)
    with (
        pytest.raises(worker.WorkerError, match=r"exit_layer=3.*1\.\.2"),
        worker.started(["specee:fp32:threshold:exit_layer=3"], folder, threads=1, capacity=64),
    ):
        pass
    failed: dict[str, str] = {}
    names = ["specee:fp32:threshold:exit_layer=3", "specee:fp32"]
    with worker.started(names, folder, 1, 64, failed) as loaded:
        assert [one.name for one in loaded] == ["specee:fp32"]
        assert "exit_layer=3" in failed.pop(names[0])
        assert failed == {}
    with worker.started(["specee:fp32"], folder, threads=1, capacity=64) as (ours,):
        with pytest.raises(worker.WorkerError, match="context"):
            ours.sample(PROMPT, 100_000)
        assert len(ours.sample(PROMPT, 2).tokens) == 2
        ours._process.kill()
        with pytest.raises(worker.WorkerError, match="ended with code"):
            ours.sample(PROMPT, 2)
    with (
        pytest.raises(worker.WorkerError, match="nowhere"),
        worker.started(["specee"], str(tmp_path / "nowhere"), threads=1, capacity=64),
    ):
        pass
