"""Planted models: what is scaled and what is not, and the sweep beside policies on a tiny one."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

import specee
from specee.backends import missing
from specee.bench.decode import planted, planted_models, planted_task, static_sweep
from specee.bench.decode.agreement import agreement
from specee.bench.decode.contest_task import Task
from specee.errors import ConfigurationError
from specee.models.checkpoint import open_checkpoint
from tests.tiny_models import tiny_folder, tiny_gguf

SEED = 5
LAYERS = 4
K = 2
TYPES = ("F32", "F16", "BF16", "Q4_0", "Q4_1", "Q8_0")
# Rows of every matrix are whole blocks.
SIZES: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": LAYERS}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("model")


@pytest.fixture(scope="module")
def source(folder: Path) -> Path:
    return tiny_gguf("llama", folder / "tiny.gguf", seed=SEED, **SIZES)


def values(path: Path) -> dict[str, np.ndarray]:
    """float32 of every tensor."""
    return {
        tensor.name: np.array(gguf.quants.dequantize(tensor.data, tensor.tensor_type))
        for tensor in gguf.GGUFReader(path).tensors
    }


@pytest.mark.parametrize("kind", TYPES)
def test_only_what_later_layers_add_is_scaled(kind: str, tmp_path: Path) -> None:
    source = tiny_gguf("llama", tmp_path / "tiny.gguf", seed=SEED, quantization=kind, **SIZES)
    # A power of two is exact in all types, but for the fp16 numbers under 2^-14, whose steps stay the same.
    factor, off = 2.0**-3, 2.0**-25 if kind == "F16" else 0.0
    path = planted_models.planted(source, K, tmp_path / "work", factor=factor)
    before, after = values(source), values(path)
    assert before.keys() == after.keys()
    for name, array in before.items():
        later = name.startswith(("blk.2.", "blk.3."))
        scaled = later and ("attn_output" in name or "ffn_down" in name)
        wanted, off_here = (array * factor, off) if scaled else (array, 0.0)
        np.testing.assert_allclose(after[name], wanted, rtol=0, atol=off_here, err_msg=name)


def test_what_the_source_is_stays_as_it_was_and_nothing_else_is_left(source: Path, tmp_path: Path) -> None:
    before = source.read_bytes()
    path = planted_models.planted(source, K, tmp_path)
    assert source.read_bytes() == before != path.read_bytes()
    assert list(tmp_path.iterdir()) == [path]
    again = planted_models.planted(source, K, tmp_path)
    assert again.read_bytes() == path.read_bytes()


def test_layers_from_k_on_agree_in_a_planted_model(source: Path, tmp_path: Path) -> None:
    if reason := missing("cpu"):
        pytest.skip(reason)
    planted_path = planted_models.planted(source, K, tmp_path)
    before, after = (
        agreement(specee.load(path, threads=1), [[5, 6, 7, 8]], 48) for path in (source, planted_path)
    )
    assert list(after) == list(range(1, LAYERS + 1))
    assert after[LAYERS] == before[LAYERS] == 1.0
    assert min(after[K], after[K + 1]) > 0.9 > max(after[K - 1], before[K])


@pytest.mark.parametrize(
    ("k", "factor", "said"),
    [(0, 0.5, r"k=0: .*1\.\.3"), (4, 0.5, "k=4: .*4 layers"), (2, 0.0, "factor=0.0"), (2, 2.0, "factor=2.0")],
)
def test_what_cannot_be_planted_is_refused(
    source: Path, tmp_path: Path, k: int, factor: float, said: str
) -> None:
    with pytest.raises(ConfigurationError, match=said):
        planted_models.planted(source, k, tmp_path, factor=factor)


def test_other_sources_and_types_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="GGUF"):
        planted_models.planted(tiny_folder("llama", tmp_path / "hf", seed=SEED), K, tmp_path)
    other = tiny_gguf("llama", tmp_path / "other.gguf", seed=SEED, quantization="Q5_0", **SIZES)
    with pytest.raises(ConfigurationError, match=r"Q5_0.*Q4_1"):
        planted_models.planted(other, K, tmp_path / "work")
    assert not list((tmp_path / "work").iterdir())


def test_the_grid_has_all_layers_around_k_and_some_of_the_rest() -> None:
    assert static_sweep.exit_layers(6, 30) == [1, 2, 4, 5, 6, 7, 8, 9, 10, 15, 20, 25]
    assert static_sweep.exit_layers(1, 4) == [1, 2, 3]
    settings = static_sweep.grid(20, 30)
    assert static_sweep.static(18, 8) in settings
    assert len(set(settings)) == len(settings)


def test_the_first_pass_takes_prompts_from_all_over() -> None:
    texts = [[index] for index in range(13)]
    assert static_sweep.few(texts) == [[0], [2], [4], [6], [8], [10]]
    assert static_sweep.few(texts[:2]) == [[0], [1]]


def test_a_ranking_names_its_settings_once() -> None:
    ranking = static_sweep.Ranking([f"s{index}" for index in range(9)])
    assert ranking.chosen == ["s0", "s1", "s2", "s3", "s4", "s5", "s8"]
    assert (ranking.median, ranking.worst) == ("s4", "s8")
    assert static_sweep.Ranking(["only"]).chosen == ["only"]


@pytest.fixture
def task(source: Path) -> Task:
    if reason := missing("cpu"):
        pytest.skip(reason)
    return Task(threads=1, model=str(source), weights=("auto", "bf16"), tokens=12, most=2)


def test_a_planted_model_from_sweep_to_shares(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(static_sweep, "LENGTHS", (1, 2))
    found = planted.measure(task, work=tmp_path, ks=(2,), policies=("autoregressive", "del"))
    natural = open_checkpoint(task.model).natural_weights
    assert [part["label"] for part in found["parts"]] == [f"k=2 {natural}", "k=2 bf16"]
    for part in found["parts"]:
        assert len(part["swept"]) == 3 * 2
        assert set(part["static"].values()) <= part["policies"].keys()
        assert part["share_of_best"].keys() == {"del"}
        assert part["policies"]["autoregressive"]["decode"]["total"] == 1.0
        assert part["policies"][part["static"]["worst"]]["drafted"] > 0
        assert part["agreement"] == part["agreement_by_layer"][2] > 0.5
        assert part["differing"] == {}


def test_the_command_prints_saves_and_ends_with_0(
    source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if reason := missing("cpu"):
        pytest.skip(reason)
    saved: dict[str, Any] = {}
    monkeypatch.setattr("specee.bench.machine.save", lambda name, result: saved.update({name: result}))
    monkeypatch.setattr(static_sweep, "LENGTHS", (1,))
    words = ["planted", "--model", source, "--threads", 1, "--k", 1, "--tokens", 6, "--most-prompts", 1]
    words += ["--policy", "prompt-lookup", "--work", tmp_path, "--save", "planted"]
    monkeypatch.setattr(sys, "argv", list(map(str, words)))
    planted_task.main(planted.__doc__, "planted", planted.POLICIES, planted.measure)
    said = capsys.readouterr()
    assert "Layers beyond k=1 barely act" in said.out
    assert "(best" in said.out
    assert "every token is that of plain decoding" in said.err
    assert json.loads(json.dumps(saved["planted"]))["parts"][0]["k"] == 1
