"""What is to be fitted, and what came of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from specee.errors import ConfigurationError
from specee.fitting.adapter_report import LayerReport
from specee.fitting.exit_report import ExitReport
from specee.fitting.limits import Limits
from specee.fitting.timetable import Timetable
from specee.model import Model

Tell = Callable[[str, int, int], None]
"""Takes a stage's name, what is done, and what there is to do."""


@dataclass(frozen=True)
class Plan:
    """What to fit.

    ``tokens`` the model is to write for it, or at most so many of the file ``corpus``, each of which is
    trained on ``epochs`` times; ``seed`` of texts and of their order; ``layers`` whose states the drafter
    reads, None for two fifths, two thirds and all of the model; ``steps`` unrolled in training;
    ``batch_tokens`` of a batch at most, padding included. ``snapshots``: files that are left on the way,
    after a half of the training, a fourth, and so on. ``base``: a speculator file whose vocabulary and
    drafter are taken as they are; ``warm_start``: one whose drafter, with its layers, is trained on, for its
    vocabulary. Adapters of exit layers learn from ``adapter_samples`` positions (none at
    all for 0), each of which comes ``epochs`` times at most. Exit predictors of ``candidates`` learn from
    ``exit_samples`` positions, each ``exit_epochs`` times (none at all for 0), and are calibrated on
    ``generations`` of ``generation_tokens`` (not for 0). ``minutes`` bounds the time of all stages together
    (:mod:`.timetable`), ``memory`` the bytes that they hold beside the model (:mod:`.limits`).
    """

    tokens: int
    seed: int = 0
    epochs: int = 2
    layers: tuple[int, ...] | None = None
    steps: int = 2
    batch_tokens: int = 1024
    learning_rate: float = 1.5e-3
    snapshots: int = 0
    corpus: str | None = None
    base: str | None = None
    warm_start: str | None = None
    candidates: int = 4
    adapter_samples: int = 65_536
    exit_samples: int = 16_384
    exit_epochs: int = 100
    generations: int = 200
    generation_tokens: int = 64
    minutes: float | None = None
    memory: int | None = None

    def __post_init__(self) -> None:
        for name, least in (
            ("tokens", 1),
            ("epochs", 1),
            ("steps", 1),
            ("batch_tokens", 1),
            ("snapshots", 0),
            ("candidates", 1),
            ("adapter_samples", 0),
            ("exit_samples", 0),
            ("exit_epochs", 1),
            ("generations", 0),
            ("generation_tokens", 1),
        ):
            if (number := getattr(self, name)) < least:
                raise ConfigurationError(f"{name}={number}: allowed is {least} or more")
        if self.minutes is not None and not 0 < self.minutes < math.inf:
            raise ConfigurationError(f"minutes={self.minutes}: allowed are numbers over 0")
        if self.base is not None and self.warm_start is not None:
            raise ConfigurationError(
                f"base={self.base} and warm_start={self.warm_start}: a drafter is kept as it is, or trained "
                "on; give one of them"
            )

    def layers_of(self, depth: int) -> tuple[int, ...]:
        """Those that the drafter reads: an early, a late and the last one, as EAGLE-3 has it."""
        return self.layers or tuple(sorted({max(1, 2 * depth // 5), max(1, 2 * depth // 3), depth}))

    def said(self) -> dict[str, object]:
        """For the file's notes; of files their names alone."""
        files = {name: None if path is None else Path(path).name for name, path in self._files().items()}
        return {**asdict(self), **files}

    def _files(self) -> dict[str, str | None]:
        return {"corpus": self.corpus, "base": self.base, "warm_start": self.warm_start}


@dataclass(frozen=True)
class Run:
    """A plan for a model; ``work`` holds what is in between, of this model as it is run alone.

    ``timetable`` says how long stages have, ``limits`` how much they take in hand.
    """

    model: Model
    plan: Plan
    work: Path
    tell: Tell
    timetable: Timetable
    limits: Limits

    @property
    def layers(self) -> tuple[int, ...]:
        """Those that the drafter reads."""
        return self.plan.layers_of(self.model.config.num_layers)


@dataclass(frozen=True)
class Report:
    """What came of it, on texts that were held out.

    ``agreement[i]``: how often the drafter's token after i of its own is the model's, the text so far being
    right. ``coverage``: of the texts' tokens by the draft vocabulary's ``vocabulary`` ids. ``losses``: of
    the last batch, by unrolled step; ``history``: of the first step, over the whole training, in equal parts
    of it. ``adapters``: of exit layers. ``exits``: of the predictors; ``losses_by_threshold``: of the
    calibration, in the mean. ``cut_short``: of stages without time for all, what was done and what there
    was. ``seconds``: since this run, or what went on with it, began.
    """

    tokens: int
    texts: int
    vocabulary: int
    coverage: float
    layers: tuple[int, ...]
    losses: list[float]
    agreement: list[float]
    history: list[float]
    adapters: tuple[LayerReport, ...]
    exits: ExitReport | None
    losses_by_threshold: dict[str, float]
    cut_short: dict[str, list[int]]
    seconds: float
