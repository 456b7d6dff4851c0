"""``specee bench`` on a tiny model and on a recorded run; nothing here depends on how fast it was."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from specee.backends import missing
from specee.bench import suite, sweep
from specee.bench.decode import contenders
from specee.cli import main
from specee.cli.arguments import BENCH_PARTS
from specee.errors import CheckpointError
from tests.tiny_models import tiny_folder

RECORDED = Path(__file__).parents[1] / "unit" / "recorded_bench.json"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    if reason := missing("cpu"):
        pytest.skip(reason)
    return str(tiny_folder("llama", tmp_path_factory.mktemp("model"), seed=1))


@pytest.fixture
def prompts(tmp_path: Path) -> str:
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"turns": ["The quick brown fox jumps over the lazy dog. The quick brown fox."]}\n')
    return str(path)


@pytest.fixture(autouse=True)
def small_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "SWEEP_BYTES", 1 << 20)


def recorded(out: Path) -> dict[str, dict[str, object]]:
    parts: dict[str, dict[str, object]] = json.loads((out / "bench.json").read_text())["parts"]
    return parts


def test_the_parts_that_can_be_asked_for_are_those_there_are() -> None:
    assert tuple(suite.PARTS) == BENCH_PARTS


def test_a_tiny_model_is_measured_and_reported(
    folder: str, prompts: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    out = tmp_path / "out"
    arguments = [
        "bench",
        "--quick",
        "--model",
        folder,
        "--prompts",
        prompts,
        "--threads",
        "1",
        "--out",
        str(out),
    ]
    names = [f"--contender={name}" for name in ("specee:fp32", "specee:bf16", "transformers:fp32")]
    parts = [f"--part={name}" for name in ("speed", "rows", "batch")]
    assert main([*arguments, *names, *parts]) == 0
    printed = capsys.readouterr().out
    assert "transformers:fp32" in printed
    assert "Verifying n rows" in printed
    parts_done = recorded(out)
    assert list(parts_done) == ["speed", "rows", "batch"]
    contenders = parts_done["speed"]["contenders"]
    assert isinstance(contenders, dict)
    assert contenders["transformers:fp32"]["same_text_turns"] == parts_done["speed"]["turns"]
    assert (out / "report.html").stat().st_size > 10_000


def test_an_earlier_run_is_reported_without_measuring(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(suite, "PARTS", {})
    assert main(["bench", "--from", str(RECORDED), "--out", str(tmp_path)]) == 0
    assert "Formats of the weights" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_without_matplotlib_there_are_tables_and_a_hint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["bench", "--from", str(RECORDED), "--out", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    assert "Formats of the weights" in out
    assert "specee[bench]" in err
    assert list(tmp_path.iterdir()) == []


def test_a_part_that_fails_is_told_of_and_the_others_run(
    folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: suite.Settings) -> dict[str, object]:
        raise CheckpointError("it is broken")

    monkeypatch.setitem(suite.PARTS, "speed", broken)
    monkeypatch.setitem(suite.PARTS, "rows", lambda _: {"weights": {}})
    monkeypatch.setattr("specee.bench.report.document.check_plots", lambda: None)
    monkeypatch.setattr("specee.bench.report.document.as_html", lambda report: "")
    arguments = ["bench", "--model", folder, "--contender", "specee", "--out", str(tmp_path)]
    assert main([*arguments, "--part", "speed", "--part", "rows"]) == 1
    assert "speed failed: it is broken" in capsys.readouterr().out
    assert recorded(tmp_path) == {"speed": {"error": "it is broken"}, "rows": {"weights": {}}}


def test_kernels_are_left_out_without_pytest_benchmark(
    folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    arguments = [
        "bench",
        "--model",
        folder,
        "--contender",
        "specee",
        "--part",
        "kernels",
        "--out",
        str(tmp_path),
    ]
    assert main(arguments) == 0
    assert "kernels left out: " in capsys.readouterr().out
    assert "specee[bench" in str(recorded(tmp_path)["kernels"]["left_out"])


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["--contender", "magic"], "llama.cpp"),
        (["--contender", "specee:q4"], "packed"),
        (["--prompts", "/does/not/exist"], "/does/not/exist"),
        (["--model", "/does/not/exist"], "/does/not/exist"),
        (["--threads", "0"], "threads"),
        (["--from", "/does/not/exist"], "/does/not/exist"),
        (
            ["--device", "cuda", "--part", "rows"],
            "--part rows measures the CPU: allowed with --device cuda is speed",
        ),
        (["--device", "cuda"], "the cuda backend is"),
    ],
)
def test_errors_are_one_line_before_anything_is_measured(
    folder: str,
    arguments: list[str],
    match: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(suite, "PARTS", {})
    where = [] if "--model" in arguments else ["--model", folder]
    assert main(["bench", *where, "--out", str(tmp_path), *arguments]) == 2
    err = capsys.readouterr().err
    assert err.startswith("specee: error: ")
    assert err.count("\n") == 1
    assert match in err
    assert list(tmp_path.iterdir()) == []


def test_a_peer_that_was_asked_for_and_is_missing_is_an_error(
    folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    assert main(["bench", "--model", folder, "--contender", "llama.cpp", "--out", str(tmp_path)]) == 2
    assert "specee[peers]" in capsys.readouterr().err


def test_on_a_device_its_own_contenders_are_measured(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {}

    def measure(names: list[str], **options: Any) -> dict[str, Any]:
        asked.update(options, names=names)
        return {"missing": {}}

    monkeypatch.setattr(contenders, "usable", lambda names: (list(names), {}))
    monkeypatch.setattr(suite.speed, "measure", measure)
    parts = suite.parts_of("cuda", None)
    assert parts == ("speed",)
    for name in parts:
        suite.PARTS[name](suite.Settings(threads=1, model=folder, device="cuda"))
    assert asked["names"] == [
        "specee:cuda",
        "specee:cuda:auto",
        "transformers:cuda",
        "transformers:cuda:static",
    ]
    assert not asked["with_memory"]
    assert asked["lenient"]
    assert suite.parts_of("cpu", None) == BENCH_PARTS
    assert suite.parts_of("cpu", ["rows", "speed", "rows"]) == ("rows", "speed")


def test_a_peer_that_nobody_asked_for_is_left_out(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    good, left_out = suite.contenders_here(suite.Settings(threads=1, model=folder))
    assert "llama.cpp" not in good
    assert "specee[peers]" in left_out["llama.cpp"]
