"""The parts of measurements that are not the clock: texts, windows, rows, bytes, child processes."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import specee
from specee.backends import missing
from specee.bench import kernel_suite
from specee.bench.decode import batch, builds, formats, memory, nodes, perplexity, rows
from specee.bench.report import tables
from specee.errors import BackendUnavailableError, ConfigurationError
from specee.models.checkpoint import open_checkpoint
from tests.random_exits import random_exits
from tests.tiny_models import tiny_folder

SEED = 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    if reason := missing("cpu"):
        pytest.skip(reason)
    return str(tiny_folder("mistral", tmp_path_factory.mktemp("model"), seed=SEED))


@pytest.fixture(scope="module")
def model(folder: str) -> specee.Model:
    return specee.load(folder, weights="fp32", threads=1)


def test_windows_are_whole_and_follow_each_other() -> None:
    assert perplexity.windows(range(10), 4) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert perplexity.windows(range(3), 4) == []


def test_the_text_is_long_enough_prose() -> None:
    text = perplexity.text()
    assert len(text) > 12 * 20_480
    assert text.count(" the ") > 1_000


def test_surprise_is_the_cross_entropy() -> None:
    logits = np.array([[0.0, 0.0, 0.0, 0.0], [100.0, 0.0, 0.0, 0.0], [0.0, 1000.0, 0.0, 0.0]], np.float32)
    assert perplexity.surprise(logits, [2, 0, 0]) == pytest.approx(math.log(4) + 1000.0, abs=1e-4)


def test_uniform_guesses_have_the_vocabulary_as_perplexity() -> None:
    found = perplexity.perplexity(lambda window: (len(window) - 1) * math.log(7.0), [[1, 2, 3], [4, 5]])
    assert found == pytest.approx(7.0)


def test_perplexity_is_that_of_transformers(folder: str) -> None:
    """Same weights in fp32. 1e-4 is far over what rounding does here, far under what a wrong target does."""
    found = perplexity.measure(["fp32", "bf16"], model=folder, threads=1, tokens=300, window=100)
    assert found["tokens"] == 300
    assert abs(found["difference"]["fp32"]) < 1e-4 < abs(found["difference"]["bf16"])


def test_only_packed_weights_have_a_limit() -> None:
    perplexity.check({"int4": 0.2, "packed": -0.004})
    with pytest.raises(SystemExit, match=r"0\.5%"):
        perplexity.check({"packed": -0.006})


def test_verifying_rows_leaves_the_sequence_as_it_was(model: specee.Model) -> None:
    sequence = rows.filled(model.backend, 20, 8)
    for count in (1, 3, 8):
        assert rows.once(model.backend, sequence, count) > 0
        assert (sequence.length, sequence.speculative) == (20, ())
    assert sequence.frontier == (20,) * 3


def test_rows_and_contexts_are_those_asked_for_and_possible(folder: str) -> None:
    found = rows.measure(["fp32"], model=folder, threads=1, repeats=2, contexts=(16, 511, 512, 4096))
    (result,) = found["weights"].values()
    assert list(result["verify"]["rows"]) == [str(count) for count in rows.ROWS]
    assert list(result["context"]["contexts"]) == ["16", "511"]
    assert result["verify"]["rows"]["1"]["ratio"] == {"median": 1.0, "min": 1.0, "max": 1.0}
    assert result["verify_long"]["context"] == 512 - max(rows.ROWS), "as long as the model has room for"
    assert list(result["verify_long"]["rows"]) == list(result["verify"]["rows"])
    assert [table.title for table in tables.of("rows", found)][:2] == [
        "Verifying n rows at context 128, beside one row",
        "Verifying n rows at context 496, beside one row",
    ]


@pytest.mark.parametrize(("apart", "rows"), [(False, "rows"), (True, "texts")])
def test_builds_take_turns_and_the_first_is_what_others_are_compared_with(
    folder: str, apart: bool, rows: str
) -> None:
    build = Path(specee.__file__).parents[1]
    sources = [builds.Source.of(text) for text in (str(build), f"{build}:portable")]
    part = builds.compare(sources, "fp32", folder, threads=1, context=20, repeats=3, apart=apart)
    first, second = part["builds"]
    assert list(first["rows"]) == list(second["rows"]) == [str(count) for count in builds.COUNTS]
    assert first["isa"] == specee.load(folder, backend="cpu").backend.isa  # type: ignore[attr-defined]
    assert second["isa"] == "portable"
    assert first["rows"]["4"]["ratio"] == {"median": 1.0, "min": 1.0, "max": 1.0}
    assert second["rows"]["4"]["ratio"]["max"] > 0
    assert second["rows"]["1"]["ms"]["min"] > 0
    (table,) = tables.of("builds", {"compared": [part]})
    assert table.title == "Builds, fp32, context 20: times the first, turn by turn"
    assert table.header[0] == rows


def test_a_build_that_does_not_start_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "specee.py").write_text("raise SystemExit('not built')\n")
    with pytest.raises(RuntimeError, match="ended: its message is above"):
        builds.Build(builds.Source(tmp_path), ["fp32", "", "1", "20", "together", "1"])


def test_windows_bound_the_keys_and_values_read(model: specee.Model) -> None:
    """Three layers, two heads of 8, fp32, keys and values; a window of 8 positions."""
    a_position = 3 * 2 * 8 * 4 * 2
    assert rows.kv_bytes(model.backend, 5) == 5 * a_position
    assert rows.kv_bytes(model.backend, 500) == 8 * a_position


def test_batches_count_the_tokens_of_all_sequences(model: specee.Model) -> None:
    class Result:
        decode_tokens_per_second = 12.0

    seen = []

    class Recorder:
        def generate(self, ids: list[list[int]], **options: object) -> Result:
            seen.append((len(ids), options["max_new_tokens"], options["return_dict"]))
            return Result()

    assert batch.decode_rate(Recorder(), [[1, 2], [3, 4]], 5) == 12.0
    assert seen == [(2, 5, True)]
    assert batch.decode_rate(model, [[1, 2], [3, 4]], 5) > 0


def test_memory_is_measured_in_another_process(folder: str) -> None:
    found = memory.in_child("specee:fp32", folder, 1, context=64)
    assert found["weights"] == "fp32"
    assert found["peak_bytes"] > 0
    assert found["ratio"] > 0
    with pytest.raises(RuntimeError, match="nowhere"):
        memory.in_child("specee", "/nowhere", 1, context=64)


def test_the_memory_of_a_parent_is_not_that_of_its_child() -> None:
    ballast = np.ones(300 << 17)  # 300 MiB
    code = "from specee.bench.decode.memory import peak_resident_bytes; print(peak_resident_bytes())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 1 << 20 < int(done.stdout) < ballast.nbytes


def test_packed_is_for_gguf_files(folder: str) -> None:
    assert open_checkpoint(folder).format.startswith("safetensors")
    assert formats.default_weights(folder) == ["bf16", "int8", "int4"]


def test_kernel_records_keep_four_digits() -> None:
    extra = {
        "op": "o",
        "rows": 3,
        "seconds": {"median": 0.000123456},
        "bytes": 96576768.0,
        "shape": [576, 64],
    }
    found = kernel_suite.condensed({"benchmarks": [{"name": "x", "stats": {}, "extra_info": extra}]}, 2)
    assert found["kernels"] == [{**extra, "seconds": {"median": 0.0001235}}]


def test_the_kernel_suite_says_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    found = kernel_suite.importlib.util.find_spec
    monkeypatch.setattr(
        kernel_suite.importlib.util,
        "find_spec",
        lambda name: None if name == "pytest_benchmark" else found(name),
    )
    with pytest.raises(BackendUnavailableError, match=r"pytest_benchmark.*specee\[bench"):
        kernel_suite.measure(threads=1)


def test_a_model_without_tokenizer_has_no_perplexity(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = open_checkpoint(folder)
    object.__setattr__(checkpoint, "tokenizer", None)
    monkeypatch.setattr(perplexity, "open_checkpoint", lambda model: checkpoint)
    with pytest.raises(ConfigurationError, match="tokenizer"):
        perplexity.measure(["fp32"], model=folder, threads=1)


def test_calls_about_nodes_are_those_that_are_said(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every number of nodes is asked about, scored and gathered as often as it is timed, and once before."""
    loaded = specee.load(folder, weights="fp32", threads=1)
    with pytest.raises(ConfigurationError, match="predictors"):
        nodes.measure_calls(loaded, 1)
    exits = loaded.backend.exit_predictors(random_exits(loaded.config, np.random.default_rng(1)))
    monkeypatch.setattr(loaded.heads, "exits", exits)
    asked: list[int] = []
    original = type(loaded.backend).ask_exits

    def count(self, rows, layer, calls):  # type: ignore[no-untyped-def]
        asked.append(len(calls[0].slots))
        answers = original(self, rows, layer, calls)
        assert len(answers) == asked[-1]
        return answers

    monkeypatch.setattr(type(loaded.backend), "ask_exits", count)
    found = nodes.measure_calls(loaded, 2, (1, 3))
    assert asked == [1, 3, 1, 3, 3, 1]
    assert found.keys() == {"score", "ask", "gather"}
    assert all(calls["1"]["ratio"]["median"] == 1 for calls in found.values())
    decisions = nodes.measure_decisions(1, (4, 8))
    result = {"weights": {"fp32": found}, "decisions": decisions}
    titles = [table.title for table in tables.of("nodes", result)]
    assert titles == ["Nodes of a tree beside one row, fp32", "Paths decided from nodes, two layers"]
