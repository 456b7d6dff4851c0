"""``specee record`` and ``specee replay`` on a tiny model and on traces that no model made."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from specee.backends import missing
from specee.cli import main
from specee.replay import read_trace, write_trace
from tests.tiny_models import tiny_folder
from tests.unit.recorded import planted


@pytest.fixture(scope="module")
def traces(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("traces")
    paths = [folder / "6.npz", folder / "20.npz"]
    for path, k in zip(paths, (6, 20), strict=True):
        write_trace(path, planted(k))
    return [str(path) for path in paths]


def test_a_model_is_recorded_and_replayed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.environ.get("SPECEE_REQUIRE_CPU") != "1" and missing("cpu") is not None:
        monkeypatch.setenv("SPECEE_BACKEND", "reference")
    folder = str(tiny_folder("llama", tmp_path, seed=1))
    prompts, trace = tmp_path / "prompts.jsonl", tmp_path / "one.npz"
    prompts.write_text('{"turns": ["The quick brown", "later"]}\n\n{"turns": ["def"]}\n{"turns": ["1"]}\n')
    arguments = ["--prompts", str(prompts), "--limit", "3", "--output", str(trace), "--tokens", "12"]
    assert main(["record", "first", *arguments, "--model", folder, "--threads", "1"]) == 0
    assert "wrote" in capsys.readouterr().err
    found = read_trace(trace)
    assert (found.name, found.layers, len(found.texts)) == ("one", 3, 3)
    assert all(1 <= text.generated <= 12 for text in found.texts)
    assert main(["replay", str(trace), "--policy", "autoregressive", "layerskip", "--sweep"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("one: 3 texts")
    assert out[2].split()[:2] == ["autoregressive", "1.000"]
    assert [line.split()[0] for line in out[3:]] == ["layerskip", "best", "median", "worst"]


def test_one_line_a_policy(traces: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", *traces, "--policy", "layerskip:exit_layer=6", "prompt-lookup"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert len(out) == 8
    assert out[0] == "k = 6: 2 texts, 240 tokens, 24 layers"
    columns = out[2].split()
    assert columns[0] == "layerskip:exit_layer=6"
    assert float(columns[1]) > 1
    assert columns[2:6] == ["96.8%", "100.0%", "2.97", "0.00%"]
    assert out[2].endswith("layer 6 60, none 2")
    assert out[6].split()[2:5] == ["98.3%", "0.0%", "0.00"]


def test_every_round_can_be_seen(traces: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["replay", traces[0], "--policy", "layerskip:exit_layer=6", "del:faithful=true", "--rounds"])
        == 0
    )
    out = capsys.readouterr().out.splitlines()
    first = out.index("layerskip:exit_layer=6, round by round")
    assert out[first + 2].split()[:5] == ["0", "9", "none", "0", "0"]
    assert out[first + 3].split()[:6] == ["0", "10", "layer", "6", "3", "3"]
    second = out.index("del:faithful=true, round by round")
    assert second == first + 2 + 62
    assert "6: 9 of 9" in out[second + 2]
    assert "5: 0 of 9" in out[second + 2]


def test_a_sweep_names_the_best_setting(traces: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", traces[0], "--policy", "autoregressive", "--sweep"]) == 0
    assert "best static: layer 6, 16 drafts" in capsys.readouterr().out


def test_a_splice_says_how_soon(traces: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    policies = ["layerskip:exit_layer=20,speculation_length=17", "layerskip:exit_layer=6"]
    assert main(["replay", *traces, "--policy", *policies, "--splice", "--at", "40"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("k = 6 then k = 20: 2 texts, 320 tokens")
    assert out[-2].endswith(
        "85% of the new best after rounds: median 0, worst 0; of the rounds from 20 on: none left"
    )
    assert out[-1].endswith("85% of the new best after rounds: none; of the rounds from 20 on: 0.0%")
    assert main(["replay", *traces, "--policy", policies[1], "--splice", "--at", "120"]) == 0
    assert "rounds: none; of" in capsys.readouterr().out
    short = str(Path(traces[0]).with_name("short.npz"))
    write_trace(Path(short), planted(20, tokens=10))
    assert main(["replay", traces[0], short, "--policy", policies[1], "--splice"]) == 0
    assert "rounds: none, 2 over too soon to tell; of" in capsys.readouterr().out
    assert main(["replay", *traces, "--policy", "del", "--splice"]) == 0
    assert "360 tokens" in capsys.readouterr().out


@pytest.mark.parametrize(("arguments", "says"), [
    (["replay", "{0}", "--policy", "nothing"], "allowed are"),
    (["replay", "{0}", "--splice"], "give two"),
    (["replay", "{0}", "{1}", "--splice", "--at", "500"], "1..120"),
    (["replay", "nowhere.npz"], "nowhere.npz"),
    (["record", "--output", "{new}"], "nothing to record"),
    (["record", "a", "--output", "{new}", "--tokens", "0"], "--tokens 0"),
    (["record", "a", "--output", "{new}", "--limit", "-1"], "--limit -1"),
    (["record", "a", "--output", "/nowhere/at/all.npz"], "--output /nowhere"),
    (["record", "--output", "{new}", "--prompts", "/nowhere.jsonl"], "prompts /nowhere"),
    (["record", "--output", "{new}", "--prompts", "{bad}"], "line 2"),
])  # fmt: skip
def test_errors_say_what_to_do(
    arguments: list[str], says: str, traces: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"turns": ["good"]}\n{"turns": []}\n')
    told = [argument.format(*traces, new=tmp_path / "new.npz", bad=bad) for argument in arguments]
    assert main(told) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "new.npz").exists()
