"""From a frozen model to its speculator file: texts, a draft vocabulary, a block, adapters, predictors.

Every stage leaves its result in the work folder, whole or not at all, so a run that was killed goes on where
it was, and comes to the same file.
"""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Callable
from collections.abc import Sequence as Seq
from dataclasses import asdict, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from specee._version import __version__
from specee.fitting import kept_arrays, vocabulary
from specee.fitting.adapter_report import LayerReport
from specee.fitting.adapters import fit_adapters
from specee.fitting.block import fit_block
from specee.fitting.corpus import Text
from specee.fitting.drafter import Drafter
from specee.fitting.exit_report import ExitReport
from specee.fitting.exits import calibrate, check_calibration, fit_exits
from specee.fitting.frozen import Frozen, read_frozen
from specee.fitting.gather import draft_vocabulary, gather_texts, written
from specee.fitting.given import Given, read_given
from specee.fitting.judging import Judge
from specee.fitting.limits import Footprint, within
from specee.fitting.plan import Plan, Report, Run, Tell
from specee.fitting.timetable import Timetable
from specee.fitting.training import Training
from specee.fitting.vocabulary import Vocabulary
from specee.model import Model
from specee.models.packaged import shape_of
from specee.models.speculator import (
    Adapter,
    Ints,
    Speculator,
    fingerprint,
    read_speculator,
    write_speculator,
)
from specee.types import ModelConfig

_STEPS = 3  # of a chain that the report looks at
_POINTS = 100  # of the loss over training


class Texts(NamedTuple):
    """To fit on, and held out."""

    fitted: list[Text]
    held_out: list[Text]


class Block(NamedTuple):
    """A drafter with its vocabulary; ``losses`` of the last batch, none where it was there before."""

    drafter: Drafter
    vocabulary: Vocabulary
    losses: list[float]
    history: list[float]


def fit(
    model: Model,
    plan: Plan,
    output: Path,
    work: Path,
    tell: Tell = lambda *_: None,
    clock: Callable[[], float] = time.monotonic,
) -> Report:
    """Fit what ``plan`` says, and write the speculator file ``output``; ``work`` holds what is in between.

    ``clock`` gives seconds, by which the plan's minutes are counted.

    Raises ConfigurationError, CheckpointError for a damaged file in ``work`` and for a base of another model,
    OSError.
    """
    mark = fingerprint(model.config, model.checkpoint.norms())
    given = read_given(model, plan, mark)
    if given is not None and plan.warm_start is not None:
        plan = replace(plan, layers=given.block.layers)
    limits = within(_footprint(model.config, plan, given), plan.memory, plan.batch_tokens)
    own = f"{mark[:16]}-{model.backend.weights}-{model.kv_dtype or 'default'}"
    seconds = None if plan.minutes is None else 60 * plan.minutes
    timetable = Timetable(seconds, work / own / f"timetable-{_digest(plan, given)}.json", clock)
    run = Run(model, plan, work / own, tell, timetable, limits)
    check_calibration(run)
    texts = Texts(*gather_texts(run))
    frozen = read_frozen(model.checkpoint, model.backend.weights)
    block = _block(run, mark, output, texts, frozen, given)
    ids = torch.from_numpy(block.vocabulary.ids)
    judge = Judge(model.backend, frozen, texts.held_out, model.kv_dtype)
    agreement = _agreement(run, judge, block, texts.held_out)
    adapters: dict[int, Adapter] = {}
    layers: tuple[LayerReport, ...] = ()
    if plan.adapter_samples and model.config.num_layers > 1:
        adapters, layers = fit_adapters(run, frozen, ids, *texts)
    speculator = Speculator(_kept(given, block.vocabulary), adapters, block.drafter.parts())
    exits: ExitReport | None = None
    if plan.exit_samples and model.config.num_layers > 1 and len(ids) >= plan.candidates:
        fitted = fit_exits(run, frozen, block.drafter, ids, texts.fitted)
        if fitted is not None:
            parts, exits = fitted
            speculator = _calibrated(run, mark, replace(speculator, exits=parts))
    report = Report(
        tokens=written(texts.fitted),
        texts=len(texts.fitted),
        vocabulary=len(ids),
        coverage=block.vocabulary.coverage,
        layers=block.drafter.shape.layers,
        losses=block.losses,
        history=block.history,
        agreement=agreement,
        adapters=layers,
        exits=exits,
        losses_by_threshold=_means(speculator),
        cut_short=timetable.cut_short(),
        seconds=timetable.spent(),
    )
    trained = 0 if plan.base is not None else _trained_tokens(report, plan)
    _write(run, mark, output, speculator, _notes(given, trained, report=asdict(report)))
    return report


def _footprint(config: ModelConfig, plan: Plan, given: Given | None) -> Footprint:
    """With the draft vocabulary of a file: it may have more ids than are chosen here."""
    words: int | None = None
    if given is not None:
        words = config.vocab_size if given.vocabulary is None else len(given.vocabulary)
    return Footprint(config, len(plan.layers_of(config.num_layers)), plan.steps, words)


def _block(run: Run, mark: str, output: Path, texts: Texts, frozen: Frozen, given: Given | None) -> Block:
    """A file's as it is, or trained on; or one of its own."""
    if given is None:
        return _trained(run, mark, output, texts, frozen, draft_vocabulary(run, *texts))
    config = run.model.config
    ids = np.arange(config.vocab_size) if given.vocabulary is None else given.vocabulary
    chosen = vocabulary.of_ids(ids, vocabulary.counted(texts.held_out, config.vocab_size))
    if run.plan.warm_start is not None:
        return _trained(run, mark, output, texts, frozen, chosen, given)
    return Block(Drafter.of(given.block, config), chosen, [], [])


def _trained(
    run: Run,
    mark: str,
    output: Path,
    texts: Texts,
    frozen: Frozen,
    chosen: Vocabulary,
    given: Given | None = None,
) -> Block:
    """With snapshots on the way."""
    plan = run.plan
    tokens = written(texts.fitted)

    def snapshot(training: Training) -> None:
        for index in range(1, plan.snapshots + 1):
            if training.done == training.batches >> index:
                trained = tokens * plan.epochs * training.done // training.batches
                notes = _notes(given, trained)
                beside = output.with_name(f"{output.stem}-{notes['trained']}{output.suffix}")
                speculator = Speculator(_kept(given, chosen), {}, training.drafter.parts())
                _write(run, mark, beside, speculator, notes)

    start = None if given is None else Drafter.of(given.block, run.model.config)
    training = fit_block(run, frozen, torch.from_numpy(chosen.ids), texts.fitted, snapshot, start)
    return Block(training.drafter, chosen, training.losses, _thinned(training.history))


def _kept(given: Given | None, chosen: Vocabulary) -> Ints | None:
    """What a file says of its vocabulary: None is all tokens."""
    return None if given is not None and given.vocabulary is None else chosen.ids


def _notes(given: Given | None, trained: int, **more: object) -> dict[str, object]:
    """``trained``: tokens in this run; the file's own come on top."""
    if given is None:
        return {"trained": trained, **more}
    return {"trained": given.trained + trained, "before": given.notes, **more}


def _agreement(run: Run, judge: Judge, block: Block, held_out: Seq[Text]) -> list[float]:
    """By step of a chain; kept, since a run that goes on has less time to look."""
    ids, plan = block.vocabulary.ids, run.plan
    parts = [array for _, array in block.drafter.parts().arrays()]
    mark = kept_arrays.mark((_STEPS, plan.minutes), [*(text.tokens for text in held_out), ids, *parts])
    path = run.work / f"agreement-{plan.seed}-{mark}.npz"
    if not path.exists():
        pace = run.timetable.begin("report")
        found = judge.agreement(
            block.drafter,
            torch.from_numpy(ids),
            _STEPS,
            lambda done, total: run.tell("report", done, total),
            pace,
        )
        kept_arrays.write(path, agreement=np.array(found))
    agreement: list[float] = kept_arrays.read(path, "agreement")["agreement"].tolist()
    return agreement


def _calibrated(run: Run, mark: str, speculator: Speculator) -> Speculator:
    """With what leaving early costs, measured with the values that a file has."""
    if not run.plan.generations:
        return speculator
    path = run.work / f"fitted-{run.plan.seed}.safetensors"
    _write(run, mark, path, speculator, {})
    stored = read_speculator(path, run.model.config, mark)
    return replace(speculator, calibration=calibrate(run, stored))


def _trained_tokens(report: Report, plan: Plan) -> int:
    """A token counted as often as it was seen, more or less where stages were cut short."""
    count = report.tokens * plan.epochs
    for stage in ("states", "drafter"):
        done, total = report.cut_short.get(stage, (1, 1))
        count = count * done // total
    return count


def _digest(plan: Plan, given: Given | None) -> str:
    """What tells plans apart, and files that they begin with, in a few digits."""
    mark = 0 if given is None else given.mark
    return f"{zlib.crc32(json.dumps(plan.said()).encode(), mark):08x}"


def _thinned(history: Seq[float]) -> list[float]:
    """Means of equal parts, few enough to be looked at."""
    parts = np.array_split(np.array(history), min(_POINTS, len(history))) if history else []
    return [float(part.mean()) for part in parts]


def _means(speculator: Speculator) -> dict[str, float]:
    if speculator.calibration is None:
        return {}
    pairs = zip(speculator.calibration.thresholds, speculator.calibration.losses, strict=True)
    return {f"{threshold:g}": float(losses.mean()) for threshold, losses in pairs}


def _write(run: Run, mark: str, path: Path, speculator: Speculator, notes: dict[str, object]) -> None:
    """The file, which also says of what model it is and how it was made."""
    made = {"plan": run.plan.said(), "specee": __version__, "torch": torch.__version__, **notes}
    write_speculator(path, speculator, mark, {"shape": shape_of(run.model.config), "fit": json.dumps(made)})
