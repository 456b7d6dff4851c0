"""Speculator files that come with the package: found for their model, in any format, and for no other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import specee
from specee.errors import CheckpointError, ConfigurationError
from specee.models import packaged
from specee.models.checkpoint import open_checkpoint
from specee.models.packaged import packaged_speculator, shape_of
from specee.models.speculator import Speculator, fingerprint, write_speculator
from tests.random_drafter import random_parts
from tests.tiny_models import tiny_folder


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tiny_folder("llama", tmp_path / "models", seed=3)


@pytest.fixture
def files(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    checkpoint = open_checkpoint(source)
    parts = random_parts(checkpoint.config, (1, 3), np.random.default_rng(1))
    folder = tmp_path / "files"
    folder.mkdir()
    mark = fingerprint(checkpoint.config, checkpoint.norms())
    shape = {"shape": shape_of(checkpoint.config)}
    write_speculator(folder / "b.safetensors", Speculator(np.arange(90), {}, parts), mark, shape)
    write_speculator(folder / "a.safetensors", Speculator(np.arange(80), {}, parts), "0" * 64, shape)
    monkeypatch.setattr(packaged, "FOLDER", folder)
    return folder


def test_it_is_found_by_its_model_in_any_format(files: Path, source: Path) -> None:
    found = packaged_speculator(open_checkpoint(source))
    assert found is not None
    assert found.vocabulary is not None
    assert len(found.vocabulary) == 90
    for weights in ("fp32", "bf16", "int8"):
        model = specee.load(source, weights=weights, threads=1)  # type: ignore[arg-type]
        assert model.heads.view.drafter is not None
        prompt = list(range(20, 30))
        result = model.generate(prompt, policy="drafter:threshold=0.0", max_new_tokens=12, return_dict=True)
        assert result.statistics.acceptance.drafted > 0
        assert result.tokens == model.generate(prompt, max_new_tokens=12, return_dict=True).tokens
        answer = model.chat().answer(prompt, model.options(1, 10, max_new_tokens=12), "drafter:threshold=0.0")
        assert sum(len(step[0]) for step in answer) == 12
        assert answer.statistics.acceptance.drafted > 0


def test_other_models_have_none(files: Path, tmp_path: Path) -> None:
    for name, seed in (("llama", 4), ("qwen3", 3)):
        other = tiny_folder(name, tmp_path / "others", seed=seed)
        assert packaged_speculator(open_checkpoint(other)) is None
        model = specee.load(other, threads=1)
        with pytest.raises(ConfigurationError, match="drafter"):
            model.generate([1, 2, 3], policy="drafter", max_new_tokens=4)


def test_plain_decoding_does_not_wait_for_it(
    files: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("it was read")

    monkeypatch.setattr("specee.model.packaged_speculator", never)
    model = specee.load(source, threads=1)
    model.generate([1, 2, 3], max_new_tokens=4)
    with pytest.raises(AssertionError, match="read"):
        model.generate([1, 2, 3], policy="auto", max_new_tokens=4)


def test_false_is_none_and_a_file_of_ones_own_comes_first(files: Path, source: Path) -> None:
    without = specee.load(source, speculator=False, threads=1)
    assert without.heads.view.drafter is None
    assert not without.heads.view.trimmed
    own = specee.load(source, speculator=Speculator(np.arange(50)), threads=1)
    assert own.heads.view.drafter is None
    assert own.heads.view.adapted
    assert own.heads.view.trimmed


@pytest.mark.parametrize("content", [b"", b"version https://git-lfs.github.com/spec/v1"])
def test_what_is_no_speculator_file_is_named(content: bytes, files: Path, source: Path) -> None:
    """Silence would look like a model for which there is none."""
    (files / "broken.safetensors").write_bytes(content)
    model = specee.load(source, threads=1)
    with pytest.raises(CheckpointError, match=r"broken\.safetensors"):
        model.generate([1, 2, 3], policy="auto", max_new_tokens=4)
    assert len(model.generate([1, 2, 3], max_new_tokens=4)) == 7


def test_a_damaged_file_is_named(files: Path, source: Path) -> None:
    path = files / "b.safetensors"
    checkpoint = open_checkpoint(source)
    parts = random_parts(checkpoint.config, (1, 3), np.random.default_rng(1))
    wrong = Speculator(np.arange(90), {}, parts.__class__(**{**parts.__dict__, "fc": parts.fc[:, 1:]}))
    mark = fingerprint(checkpoint.config, checkpoint.norms())
    write_speculator(path, wrong, mark, {"shape": shape_of(checkpoint.config)})
    with pytest.raises(CheckpointError, match=path.name):
        specee.load(source, threads=1).generate([1, 2, 3], policy="auto", max_new_tokens=4)
