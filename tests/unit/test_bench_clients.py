"""The bench of clients: stock and ours are asked the same, and answers are compared."""

from __future__ import annotations

from pathlib import Path

import pytest

from specee.bench.decode import clients
from specee.bench.harness import run
from specee.bench.report import document, tables
from specee.errors import ConfigurationError
from tests.tiny_models import tiny_folder


def test_clients_are_timed_and_their_answers_compared(tmp_path: Path) -> None:
    folder = tiny_folder("llama", tmp_path, seed=1)
    chosen = ["pipeline", "pipeline, batches of 8", "chat"]
    options = {"model": str(folder), "threads": 1, "tokens": 2, "rounds": 1, "most_prompts": 2}
    found = clients.measure(chosen, **options)  # type: ignore[arg-type]
    assert list(found["clients"]) == chosen
    for own in found["clients"].values():
        assert own["same_answers"] == 1
        assert own["seconds"]["min"] > 0
    assert "lm-eval" in found["not_measured"]
    (table,) = tables.of("clients", found)
    assert [row[0] for row in table.rows] == chosen
    assert "lm-eval" in table.note


def test_answers_that_differ_are_not_called_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: a client that answers something else each time."""
    folder = tiny_folder("llama", tmp_path, seed=1)
    said = iter(range(10))
    monkeypatch.setitem(clients.CLIENTS, "pipeline", lambda *_: [str(next(said))])
    found = clients.measure(["pipeline"], model=str(folder), threads=1, tokens=3, rounds=2, most_prompts=1)
    assert found["clients"]["pipeline"]["same_answers"] == 0


@pytest.mark.parametrize("options", [{"tokens": 0}, {"rounds": 0}, {"clients": ["curl"]}])
def test_what_cannot_be(options: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError, match="allowed are"):
        clients.measure(threads=1, **options)  # type: ignore[arg-type]


def test_the_task_has_enough_questions() -> None:
    questions = (run.FOLDER / "questions.jsonl").read_text().splitlines()
    assert len(set(questions)) == len(questions) >= 12


def test_a_result_is_of_the_kind_that_its_name_begins_with() -> None:
    assert document.kind("drop-in-fp32") == document.kind("drop-in") == "drop-in"
    assert document.kind("speed-bf16") == "speed"
