"""The third stage: exit predictors for the drafter's candidates, and what leaving by them costs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from collections.abc import Sequence as Seq
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from specee.errors import ConfigurationError
from specee.fitting import kept_arrays
from specee.fitting.calibration import THRESHOLDS, Calibrator, questions
from specee.fitting.corpus import Text
from specee.fitting.drafter import Drafter
from specee.fitting.exit_report import ExitReport
from specee.fitting.exit_samples import Sampler
from specee.fitting.exit_training import train
from specee.fitting.frozen import Frozen
from specee.fitting.plan import Run
from specee.fitting.timetable import Pace
from specee.fitting.turns import Turns, turns_of
from specee.fitting.writer import Writer
from specee.models.drafter_parts import DrafterParts
from specee.models.exit_parts import Calibration, ExitParts
from specee.models.speculator import Speculator

_LOOKED_AT = 0.6  # of the stage's time, where that is bounded: then predictors are trained
_ASKED = 0.3  # and of that of the calibration, for questions
_FEWEST = 8  # generations that are worth a calibration, where time is short


def fit_exits(
    run: Run, frozen: Frozen, drafter: Drafter, vocabulary: Tensor, texts: Seq[Text]
) -> tuple[ExitParts, ExitReport] | None:
    """Predictors for every layer but the last; None without time for them.

    Raises CheckpointError, OSError.
    """
    plan = run.plan
    said = plan.exit_samples, plan.exit_epochs, plan.candidates, plan.minutes
    tokens = [text.tokens for text in texts]
    mark = kept_arrays.mark(said, [*tokens, vocabulary.numpy(), *_arrays(drafter.parts())])
    path = run.work / f"exits-{plan.seed}-{mark}.npz"
    if path.exists():
        arrays = kept_arrays.read(path, "report", "layers")
        report = ExitReport(**json.loads(str(arrays.pop("report"))))
        return ExitParts(tuple(arrays.pop("layers").tolist()), **arrays), report
    pace = run.timetable.begin("exits")
    if pace.over():
        pace.close(0, plan.exit_samples)
        return None
    model, look = run.model, run.limits.look
    sampler = Sampler(model.backend, frozen, drafter, vocabulary, plan.candidates, model.kv_dtype, look)
    samples = sampler.samples(
        texts,
        plan.exit_samples,
        lambda done, total: run.tell("exits", done, total),
        lambda: pace.over(_LOOKED_AT),
    )
    parts, report = train(
        samples,
        plan.seed,
        plan.exit_epochs,
        lambda done, total: run.tell("predictors", done, total),
        pace.over,
    )
    pace.close(len(samples.right), plan.exit_samples)
    kept_arrays.write(
        path,
        layers=np.array(parts.layers),
        report=np.array(json.dumps(asdict(report))),
        **dict(parts.arrays()),
    )
    return parts, report


def calibrate(run: Run, speculator: Speculator) -> Calibration | None:
    """Losses of every threshold; None for a model that asks no questions, having no chat template.

    Raises CheckpointError, OSError.
    """
    model, plan = run.model, run.plan
    turns = turns_of(model.tokenizer)
    if not turns.between:
        return None
    ends = frozenset(model.checkpoint.eos_token_ids)
    ids = np.arange(0) if speculator.vocabulary is None else speculator.vocabulary
    arrays = [ids, *_arrays(speculator.drafter), *_arrays(speculator.exits)]
    said = plan.generations, plan.generation_tokens, plan.minutes, THRESHOLDS
    mark = kept_arrays.mark(said, arrays)
    path = run.work / f"losses-{plan.seed}-{mark}.npz"
    losses = kept_arrays.read(path, "prompts") if path.exists() else {}
    if losses:
        prompts = [tuple(map(int, one.split())) for one in losses.pop("prompts").tolist()]
    else:
        prompts = _questions(run, turns, ends)
        _keep(path, prompts, losses)
    calibrator = Calibrator(model.backend, speculator, ends, plan.generation_tokens, model.kv_dtype)
    pace = run.timetable.begin("calibration")
    if not losses and plan.minutes is not None:
        prompts = prompts[: _affordable(pace, calibrator, prompts)]
    for index, threshold in enumerate(THRESHOLDS if prompts else ()):
        if str(index) in losses:
            continue
        if pace.left() <= 0:
            break
        run.tell("calibration", index, len(THRESHOLDS))
        losses[str(index)] = calibrator.losses_of(prompts, threshold)
        _keep(path, prompts, losses)
    whole = len(losses) == len(THRESHOLDS)
    pace.close(len(prompts) if whole else 0, plan.generations)
    if not whole:
        return None
    found = np.stack([losses[str(index)] for index in range(len(THRESHOLDS))])
    return Calibration(np.array(THRESHOLDS, np.float32), found, model.backend.weights)


def _questions(run: Run, turns: Turns, ends: frozenset[int]) -> list[tuple[int, ...]]:
    """As many as there are to be, or as there is time for."""
    model, plan = run.model, run.plan
    pace = run.timetable.begin("calibration")
    if pace.over(_ASKED):
        return []
    run.tell("questions", 0, plan.generations)
    width = run.limits.width
    writer = Writer(
        model.backend, model.tokenizer, turns, ends, width=width, answer_tokens=1, kv_dtype=model.kv_dtype
    )
    return questions(writer, plan.seed, plan.generations, lambda: pace.over(_ASKED))


def _keep(path: Path, prompts: Seq[tuple[int, ...]], losses: Mapping[str, npt.NDArray[Any]]) -> None:
    """What is known so far; nothing of no prompts."""
    if prompts:
        kept_arrays.write(path, prompts=np.array([" ".join(map(str, one)) for one in prompts]), **losses)


def _affordable(pace: Pace, calibrator: Calibrator, prompts: Seq[tuple[int, ...]]) -> int:
    """Generations that there is time to try all thresholds on, by what a few of them take."""
    if pace.over():
        return 0
    if len(prompts) <= _FEWEST:
        return len(prompts)
    begin = pace.spent()
    calibrator.losses_of(prompts[:_FEWEST], THRESHOLDS[0])
    rounds = int(pace.left() / (len(THRESHOLDS) * max(pace.spent() - begin, 1e-9)))
    return min(len(prompts), _FEWEST * rounds)


def check_calibration(run: Run) -> None:
    """Raise ConfigurationError, before hours are spent, for a template that no question can be drawn with."""
    if not run.plan.generations or not run.plan.exit_samples:
        return
    try:
        turns_of(run.model.tokenizer)
    except ConfigurationError as error:
        raise ConfigurationError(
            f"{error}; without a calibration (generations=0) it is not needed"
        ) from error


def _arrays(parts: DrafterParts | ExitParts | None) -> list[npt.NDArray[Any]]:
    return [] if parts is None else [array for _, array in parts.arrays()]
