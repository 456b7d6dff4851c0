"""``specee info --costs``: steps add up, barriers are those that the design allows, the table is whole."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from specee.backends.cpu import CpuBackend
from specee.cli import main
from specee.cli.costs import ROWS, measure, report
from tests.random_model import CONFIGS, random_model
from tests.tiny_models import tiny_folder

CONFIG = replace(CONFIGS["llama"], max_position=1200)


def backend(threads: int) -> CpuBackend:
    model = random_model(CONFIG, seed=4)
    return CpuBackend(CONFIG, model.slabs(), "fp32", threads=threads)


def test_a_layer_waits_five_times_and_the_head_once() -> None:
    costs = measure(backend(threads=2), rows=4, context=40)
    assert costs.barriers == 5 * CONFIG.num_layers + 1
    assert all(seconds > 0 for step, seconds in costs.steps.items() if step != "wait")
    assert costs.steps["wait"] >= 0
    assert costs.wall > 0


def test_a_long_context_that_heads_cannot_share_evenly_waits_once_more() -> None:
    odd = replace(CONFIG, num_heads=3, num_kv_heads=3)
    model = random_model(odd, seed=4)
    two = CpuBackend(odd, model.slabs(), "fp32", threads=2)
    assert measure(two, rows=1, context=100).barriers == 5 * odd.num_layers + 1
    assert measure(two, rows=1, context=1100).barriers == 6 * odd.num_layers + 1


def test_nothing_is_counted_unless_asked() -> None:
    engine = backend(threads=1)
    sequence = engine.sequence(4)
    engine.advance([(sequence, sequence.append([1, 2]))], CONFIG.num_layers)
    assert all(value == 0 for member in engine.take_costs(watch=False) for value in member.values())


def test_the_table_names_every_step_and_counts_every_byte() -> None:
    engine = backend(threads=1)
    sizes = engine.bytes_by_step
    vectors = sum(
        4 * int(np.prod(a.shape)) for key, a in random_model(CONFIG, seed=4).weights.items() if a.ndim == 1
    )
    assert sum(sizes.values()) == engine.step_bytes - vectors
    lines = list(report(engine, [measure(engine, rows, 8) for rows in ROWS], 1e-6, 10.0, 8))
    titles = (
        "q, k, v",
        "attention",
        "gate, up, SwiGLU",
        "norm and head",
        "waiting",
        "whole pass",
        "barriers",
    )
    for title in titles:
        assert any(title in line for line in lines), title


def test_the_command_prints_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("specee.cli.bandwidth._SWEEP_BYTES", 1 << 20)
    folder = tiny_folder("llama", tmp_path, seed=1)
    assert main(["info", "--costs", "--model", str(folder), "--threads", "1"]) == 0
    assert "barriers a pass" in capsys.readouterr().out
