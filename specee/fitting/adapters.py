"""The stage between block and predictors: adapters for a handful of exit layers, where they pay."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from collections.abc import Sequence as Seq
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from specee.backends.protocol import Ints
from specee.fitting import adapter_report, kept_arrays
from specee.fitting.adapter_judging import AdapterJudge
from specee.fitting.adapter_report import Head, LayerReport
from specee.fitting.adapter_samples import order_of, positions_of
from specee.fitting.adapter_shapes import exit_layers, widths_of
from specee.fitting.adapter_training import AdapterTraining
from specee.fitting.corpus import Text
from specee.fitting.frozen import Frozen
from specee.fitting.plan import Run
from specee.fitting.timetable import Pace
from specee.models.speculator import Adapter
from specee.policies.objective import Objective

_SAVE_EVERY = 32  # batches
_JUDGED = 8  # tokens to fit on, for one that is held out and looked at
_TRAINED = 0.75  # of the stage's time, where that is bounded; the rest is for judging


def fit_adapters(
    run: Run, frozen: Frozen, vocabulary: Tensor, fitted: Seq[Text], held_out: Seq[Text]
) -> tuple[dict[int, Adapter], tuple[LayerReport, ...]]:
    """Those that pay, by layer, and what is to be said of all of them.

    A run that goes on keeps to what was chosen, since times are measured otherwise the next time. Raises
    CheckpointError, OSError.
    """
    plan, config = run.plan, run.model.config
    layers, widths = exit_layers(config.num_layers), widths_of(config.hidden_size)
    batch = run.limits.batch // 2
    said = plan.adapter_samples, batch, plan.epochs, plan.minutes, layers, widths
    tokens = [text.tokens for text in (*fitted, *held_out)]
    mark = kept_arrays.mark(said, [*tokens, vocabulary.numpy()])
    path = run.work / f"adapters-{plan.seed}-{mark}.npz"
    if path.exists():
        return _read(path)
    training_path = path.with_suffix(".safetensors")
    pace = run.timetable.begin("adapters")
    if pace.over() and not training_path.exists():  # what was trained is judged, also after a kill
        pace.close(0, plan.adapter_samples)
        return {}, ()
    torch.manual_seed(plan.seed)
    order = order_of(fitted, plan.adapter_samples, batch, plan.epochs, plan.seed)
    training = AdapterTraining(frozen, vocabulary, layers, widths, len(order), f"adapters {mark}")
    if training_path.exists():
        training.resume(training_path)
    for done in _train(run, training, fitted, order, training_path, pace):
        run.tell("adapters", done, training.batches)
    judge = AdapterJudge(run.model.backend, frozen, vocabulary, run.model.kv_dtype)
    agreement = judge.agreement(
        training,
        layers,
        held_out,
        max(1, plan.adapter_samples // _JUDGED),
        lambda done, total: run.tell("adapters judged", done, total),
        pace,
    )
    pace.close(training.done, training.batches)
    found = _chosen(run, vocabulary.numpy(), training, agreement)
    _write(path, *found)
    training_path.unlink(missing_ok=True)
    return found


def _train(
    run: Run, training: AdapterTraining, texts: Seq[Text], order: Seq[Seq[int]], path: Path, pace: Pace
) -> Iterator[int]:
    """What is left and there is time for, saving on the way; gives how many batches are done."""
    for indices in order[training.done :]:
        if training.done and pace.over(_TRAINED):
            training.save(path)
            break
        some = [texts[index] for index in indices]
        positions = positions_of(run.model.backend, some, training.layers, run.model.kv_dtype)
        training.step(positions, pace.progress(training.done, training.batches, _TRAINED))
        if training.done % _SAVE_EVERY == 0 or training.done == training.batches:
            training.save(path)
        yield training.done


def _chosen(
    run: Run, vocabulary: Ints, training: AdapterTraining, agreement: Seq[Seq[float]]
) -> tuple[dict[int, Adapter], tuple[LayerReport, ...]]:
    """By times as they are measured on this machine, and bytes that heads read."""
    backend = run.model.backend
    objective = Objective(run.model.latency.table(), run.model.config.num_layers)
    whole = backend.draft_head(None, None).bytes
    adapters: dict[int, Adapter] = {}
    reports: list[LayerReport] = []
    for layer, made, rates in zip(training.layers, training.by_layer(), agreement, strict=True):
        parts = [None, *(adapter.part() for adapter in made)]
        shares = [1.0, *(backend.draft_head(part, vocabulary).bytes / whole for part in parts)]
        heads = [
            Head(rate, adapter_report.speed(objective, layer, share, rate))
            for rate, share in zip(rates, shares, strict=True)
        ]
        adapted = dict(zip(training.widths, heads[2:], strict=True))
        report = adapter_report.choose(layer, heads[0], heads[1], adapted)
        reports.append(report)
        if report.kept is not None:
            adapters[layer] = made[training.widths.index(report.kept)].part()
    return adapters, tuple(reports)


def _write(path: Path, adapters: Mapping[int, Adapter], reports: Seq[LayerReport]) -> None:
    arrays = {
        f"{layer}.{part}": getattr(adapter, part)
        for layer, adapter in adapters.items()
        for part in ("norm", "down", "up")
    }
    kept_arrays.write(path, report=np.array(json.dumps([asdict(one) for one in reports])), **arrays)


def _read(path: Path) -> tuple[dict[int, Adapter], tuple[LayerReport, ...]]:
    arrays = kept_arrays.read(path, "report")
    reports = tuple(map(_report, json.loads(str(arrays["report"]))))
    kept = [one.layer for one in reports if one.kept is not None]
    names = [f"{layer}.{part}" for layer in kept for part in ("norm", "down", "up")]
    arrays = kept_arrays.read(path, *names)
    return {
        layer: Adapter(*(arrays[f"{layer}.{part}"] for part in ("norm", "down", "up"))) for layer in kept
    }, reports


def _report(said: dict[str, Any]) -> LayerReport:
    adapted = {int(width): Head(**head) for width, head in said["adapted"].items()}
    return LayerReport(said["layer"], Head(**said["own"]), Head(**said["trimmed"]), adapted, said["kept"])
