"""From a frozen model to its speculator file: texts, a draft vocabulary, a drafter block.

Every stage leaves its result in the work folder, whole or not at all, so a run that was killed goes on where
it was, and comes to the same file.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path

import torch

from specee._version import __version__
from specee.fitting.block import fit_block
from specee.fitting.frozen import read_frozen
from specee.fitting.gather import draft_vocabulary, gather_texts, written
from specee.fitting.judging import Judge
from specee.fitting.plan import Plan, Report, Run, Tell
from specee.fitting.training import Training
from specee.fitting.vocabulary import Vocabulary
from specee.model import Model
from specee.models.packaged import shape_of
from specee.models.speculator import Speculator, fingerprint, write_speculator

_STEPS = 3  # of a chain that the report looks at


def fit(model: Model, plan: Plan, output: Path, work: Path, tell: Tell = lambda *_: None) -> Report:
    """Fit what ``plan`` says, and write the speculator file ``output``; ``work`` holds what is in between.

    Raises ConfigurationError, CheckpointError for a damaged file in ``work``, OSError.
    """
    begin = time.monotonic()
    mark = fingerprint(model.config, model.checkpoint.norms())
    own = f"{mark[:16]}-{model.backend.weights}-{model.kv_dtype or 'default'}"
    run = Run(model, plan, work / own, tell)
    fitted, held_out = gather_texts(run)
    chosen = draft_vocabulary(run, fitted, held_out)
    ids = torch.from_numpy(chosen.ids)
    frozen = read_frozen(model.checkpoint, model.backend.weights)
    tokens = written(fitted)

    def snapshot(training: Training) -> None:
        for index in range(1, plan.snapshots + 1):
            if training.done == training.batches >> index:
                trained = tokens * plan.epochs * training.done // training.batches
                beside = output.with_name(f"{output.stem}-{trained}{output.suffix}")
                _write(run, mark, beside, chosen, training, {"trained": trained})

    training = fit_block(run, frozen, ids, fitted, snapshot)
    judge = Judge(model.backend, frozen, held_out, model.kv_dtype)
    report = Report(
        tokens=tokens,
        texts=len(fitted),
        vocabulary=len(chosen.ids),
        coverage=chosen.coverage,
        layers=run.layers,
        losses=training.losses,
        agreement=judge.agreement(
            training.drafter, ids, _STEPS, lambda done, total: tell("report", done, total)
        ),
        seconds=time.monotonic() - begin,
    )
    notes = {"trained": tokens * plan.epochs, "report": asdict(report)}
    _write(run, mark, output, chosen, training, notes)
    return report


def _write(
    run: Run, mark: str, path: Path, chosen: Vocabulary, training: Training, notes: dict[str, object]
) -> None:
    """The file, which also says of what model it is and how it was made."""
    made = {"plan": run.plan.said(), "specee": __version__, "torch": torch.__version__, **notes}
    write_speculator(
        path,
        Speculator(chosen.ids, {}, training.drafter.parts()),
        mark,
        {"shape": shape_of(run.model.config), "fit": json.dumps(made)},
    )
