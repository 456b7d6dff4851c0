"""The latency table as ``specee info --costs`` prints it."""

from __future__ import annotations

from pathlib import Path

import pytest

from specee.cli import main
from specee.cli.latency import draft_seconds, exit_layers, latency_lines
from specee.policies import Latency
from tests.tiny_models import tiny_folder

TABLE = Latency((1, 4), (1e-4, 2e-4), (1e-3, 1.5e-3), call=5e-5, step=9.5e-4)


def test_the_lines() -> None:
    """30 layers of 100 us, a head of 1 ms, and 1 ms around them: a plain step takes 5 ms."""
    assert [line.split() for line in latency_lines(TABLE, 30)][:3] == [
        ["rows", "layer", "us", "head", "us", "step", "ms", "times", "one"],
        ["1", "100.0", "1000.0", "5.00", "1.00"],
        ["4", "200.0", "1500.0", "8.50", "1.70"],
    ]
    last = list(latency_lines(TABLE, 30))[-2:]
    assert last[0] == "beside its work a call takes 50 us, and the loop 950 us a turn"
    assert last[1].endswith("in plain steps: 0.34 at 7, 0.50 at 15, 0.64 at 22")


def test_what_a_draft_costs() -> None:
    assert draft_seconds(TABLE, 10) == pytest.approx(10 * 1e-4 + 1e-3)


@pytest.mark.parametrize(
    ("layers", "exits"), [(1, []), (2, [1]), (3, [1, 2]), (4, [1, 2, 3]), (30, [7, 15, 22])]
)
def test_exit_layers_lie_within_the_model(layers: int, exits: list[int]) -> None:
    assert exit_layers(layers) == exits
    drafts = [line for line in latency_lines(TABLE, layers) if "drafted" in line]
    assert len(drafts) == bool(exits)


def test_the_command_prints_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("specee.cli.bandwidth._SWEEP_BYTES", 1 << 20)
    folder = tiny_folder("llama", tmp_path, seed=1)
    assert main(["info", "--costs", "--model", str(folder), "--threads", "1"]) == 0
    printed = capsys.readouterr().out
    assert "times one" in printed
    assert "in plain steps" in printed
