"""What the measurements of approximate decoding count, on tiny models."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import specee
from specee.bench.decode import calibration, early_exit
from specee.bench.decode.contest_task import Task
from specee.bench.decode.missing_kv import MissingKv
from specee.bench.report import tables
from specee.bench.report.exit_plot import exit_curves
from specee.bench.report.plots import drawn
from specee.models.checkpoint import open_checkpoint
from specee.models.exit_parts import Calibration
from specee.models.speculator import Speculator, fingerprint, write_speculator
from tests.random_drafter import random_parts
from tests.random_exits import random_exits
from tests.tiny_models import tiny_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder("llama", tmp_path_factory.mktemp("tiny"), seed=3)


def fitted(folder: Path, path: Path, losses: np.ndarray) -> Path:
    checkpoint = open_checkpoint(folder)
    config, rng = checkpoint.config, np.random.default_rng(5)
    parts = random_parts(config, (1, config.num_layers), rng, config.intermediate_size)
    exits = random_exits(config, rng, candidates=16)
    measured = Calibration(np.array([0.9, 0.5], np.float32), losses.astype(np.float32), "fp32")
    speculator = Speculator(None, {}, parts, exits, measured)
    write_speculator(path, speculator, fingerprint(config, checkpoint.norms()))
    return path


def test_everything_is_measured(folder: Path, tmp_path: Path) -> None:
    path = fitted(folder, tmp_path / "a.safetensors", np.zeros((2, 9)))
    task = Task(1, str(folder), ("fp32",), tokens=8, most=2)
    policies = ("specee:mode=approximate,threshold=0.0", "specee:mode=approximate,threshold=1.0")
    result = early_exit.measure(task, policies, path)
    (part,) = result["parts"]
    low, high = (part["policies"][policy] for policy in policies)
    assert high["agreement"] == 1.0
    assert high["exit_layer"] == part["layers"] > low["exit_layer"]
    # Nothing is left out where nothing leaves, so that both are the full model's, in fp32.
    assert high["perplexity"] == pytest.approx(part["plain"]["perplexity"], rel=1e-6)
    assert high["perplexity_missing_kv"] == pytest.approx(part["plain"]["perplexity"], rel=1e-3)
    assert low["perplexity"] != pytest.approx(high["perplexity"], rel=1e-3)
    assert [table.title for table in tables.of("early-exit", result)]
    pytest.importorskip("matplotlib")
    image = drawn(exit_curves, result)
    assert image == drawn(exit_curves, result)
    assert image.startswith(b"<?xml")


def test_keys_and_values_are_left_out_layer_by_layer(folder: Path) -> None:
    """With all layers it is the model; with the last token alone leaving early nothing is missing yet."""
    model = specee.load(folder, threads=1, weights="fp32")
    missing = MissingKv(open_checkpoint(folder), 1)
    prompt, text, layers = [5, 6, 7], [8, 9, 3, 4, 6], model.config.num_layers
    state = model.backend.sequence(16)
    slots = state.append([*prompt, *text[:-1]])
    model.backend.advance([(state, slots)], layers)
    logits = model.backend.logits([(state, slots[2:])])
    chances = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    full = -float(chances[np.arange(5), text].sum())
    assert missing.surprise(prompt, text, [layers] * 5) == pytest.approx(full, rel=1e-4)
    fresh = model.backend.sequence(16)
    every = fresh.append([*prompt, *text[:-1]])
    model.backend.advance([(fresh, every[:-1])], layers)
    model.backend.advance([(fresh, every[-1:])], 1)
    last = model.backend.logits([(fresh, every[-1:])])[0]
    early = full + float(chances[4, text[4]]) - float(last[text[4]] - np.log(np.exp(last).sum()))
    assert missing.surprise(prompt, text, [layers] * 4 + [1]) == pytest.approx(early, rel=1e-4)
    first = missing.surprise(prompt, text, [1] + [layers] * 4)
    assert first != pytest.approx(full, rel=1e-3), "those that come later miss what was skipped"


def test_splits_fail_where_losses_are_over_the_bound(folder: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    losses = np.stack([np.zeros(400), np.full(400, 0.5)]) + rng.uniform(0, 0.02, (2, 400))
    path = fitted(folder, tmp_path / "a.safetensors", losses)
    result = calibration.measure(str(folder), path, (0.1, 0.9, 0.001), splits=50)
    bounds = result["bounds"]
    assert bounds["0.1"]["threshold"] == pytest.approx(0.9)
    assert bounds["0.9"]["threshold"] == pytest.approx(0.5)
    assert bounds["0.001"]["threshold"] is None
    assert bounds["0.001"]["mean_loss"] is None
    assert bounds["0.1"]["failed"] == 0.0
    assert [table.title for table in tables.of("calibration", result)]
