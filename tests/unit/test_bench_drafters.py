"""How often fitted drafters are right, by a drafter that can only say one thing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import specee
from specee.backends import missing
from specee.bench.decode import drafters
from specee.bench.decode.contest_task import Task
from specee.bench.report import tables
from specee.errors import CheckpointError, ConfigurationError
from specee.models.speculator import Speculator, fingerprint, write_speculator
from tests.random_drafter import random_parts
from tests.tiny_models import tiny_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if reason := missing("cpu"):
        pytest.skip(reason)
    return tiny_folder("llama", tmp_path_factory.mktemp("model"), seed=3)


def written(model: specee.Model, path: Path, vocabulary: list[int] | None, trained: str = "null") -> Path:
    parts = random_parts(model.config, (1, 2), np.random.default_rng(1), inner=model.config.intermediate_size)
    ids = None if vocabulary is None else np.array(vocabulary)
    mark = fingerprint(model.config, model.checkpoint.norms())
    write_speculator(path, Speculator(ids, {}, parts), mark, {"fit": f'{{"trained": {trained}}}'})
    return path


def test_agreement_and_coverage_by_hand(folder: Path, tmp_path: Path) -> None:
    model = specee.load(folder, threads=1)
    asked = tmp_path / "prompts.jsonl"
    asked.write_text("".join([f'{{"turns": ["Say {word}."]}}\n' for word in ["one", "two", "three", "four"]]))
    task = Task(1, str(folder), ("fp32",), tokens=20, files=(asked,))
    texts = task.texts(model.checkpoint, [asked])
    plain = [model.generate(text, max_new_tokens=20, do_sample=False)[len(text) :] for text in texts]
    tokens = np.concatenate(plain)
    common = int(np.bincount(tokens).argmax())
    rare = int(np.setdiff1d(np.arange(model.config.vocab_size), tokens)[0])
    files = [
        written(model, tmp_path / "late.safetensors", [common], "900"),
        written(model, tmp_path / "wrong.safetensors", [rare], "300"),
        written(model, tmp_path / "both.safetensors", [common, rare]),
    ]
    result = drafters.measure(task, files)
    assert result["tokens"] == len(tokens)
    found = {one["file"]: one for one in result["drafters"]}
    assert [one["trained_tokens"] for one in result["drafters"]] == [None, 300, 900]
    right = found["late.safetensors"]
    assert right["coverage"] == pytest.approx(np.mean(tokens == common))
    # The token after the prompt has true states behind it too; the later drafts of a chain are as many.
    assert right["agreement"] == pytest.approx([np.mean(tokens == common)] * 3)
    assert found["wrong.safetensors"]["agreement"] == [0, 0, 0]
    assert 0 <= found["both.safetensors"]["agreement"][0] <= right["agreement"][0]
    (table,) = tables.of("drafters", result)
    assert [row[0] for row in table.rows] == ["both.safetensors", "wrong.safetensors", "late.safetensors"]
    assert table.rows[0][1] == "unknown"


def test_files_that_cannot_be_judged_are_refused(folder: Path, tmp_path: Path) -> None:
    model = specee.load(folder, threads=1)
    asked = tmp_path / "prompts.jsonl"
    asked.write_text('{"turns": ["Say something."]}')
    task = Task(1, str(folder), ("fp32",), tokens=4, files=(asked,))
    with pytest.raises(ConfigurationError, match=r"all\.safetensors"):
        drafters.measure(task, [written(model, tmp_path / "all.safetensors", None)])
    other = specee.load(tiny_folder("llama", tmp_path / "other", seed=4), threads=1)
    with pytest.raises(CheckpointError, match="fingerprint"):
        drafters.measure(task, [written(other, tmp_path / "other.safetensors", [1])])
