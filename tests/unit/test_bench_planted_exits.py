"""Exit predictors on planted models: what is counted, and what speed is compared with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from specee.bench.decode import planted_exits
from specee.bench.decode.contest_task import Task
from specee.bench.report import tables
from specee.models.checkpoint import open_checkpoint
from specee.models.speculator import Speculator, fingerprint, write_speculator
from specee.policies import Latency
from tests.random_drafter import random_parts
from tests.random_exits import random_exits
from tests.tiny_models import tiny_gguf

K = 2
SIZES: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4}


def test_speed_is_expected_from_where_tokens_left() -> None:
    """Ten layers of a second each and a head of two; more rows that cost nothing, or as much each."""
    free = Latency((1, 32), (1.0, 1.0), (2.0, 2.0))
    alone, completed = planted_exits.expected(free, [4, 6], 10, 1.0)
    assert alone == pytest.approx(12 / 8)
    assert completed == pytest.approx(12 / (8 + 5 / 17))
    dear = Latency((1, 32), (1.0, 32.0), (2.0, 2.0))
    assert planted_exits.expected(dear, [4, 6], 10, 0.0) == pytest.approx((12 / 7, 1.0))


@pytest.mark.parametrize(("threshold", "leave"), [(0.0, True), (1.0, False)])
def test_a_planted_model_is_decoded_both_ways(tmp_path: Path, threshold: float, leave: bool) -> None:
    """With predictors that are there already: those of a fit are made on hours of text."""
    source = tiny_gguf("llama", tmp_path / "tiny.gguf", seed=3, **SIZES)
    checkpoint = open_checkpoint(source)
    config, rng = checkpoint.config, np.random.default_rng(5)
    parts = random_parts(config, (1, config.num_layers), rng, config.intermediate_size)
    exits = random_exits(config, rng, candidates=16)
    mark = fingerprint(config, checkpoint.norms())
    path = tmp_path / f"tiny-planted-{K}-fp32.safetensors"
    write_speculator(path, Speculator(None, {}, parts, exits), mark)
    task = Task(1, str(source), ("fp32",), tokens=8, most=2)
    result = planted_exits.measure(
        task, work=tmp_path, ks=[K], factor=2.0**-9, fit_tokens=1, threshold=threshold
    )
    (part,) = result["parts"]
    assert (part["k"], part["layers"], part["prompts"]) == (K, 4, 2)
    assert (part["exit_layer"]["mean"] < 4) is leave
    assert (part["left_early"] > 0) is leave
    assert part["layers_passed"] == part["exit_layer"]["mean"] / 4
    assert leave or part["agreement"] == 1.0
    assert min(part["total"], part["layer_seconds"], *part["expected"].values()) > 0
    (table,) = tables.of("planted-exits", result)
    assert table.rows[0][0] == f"k = {K}, fp32"
