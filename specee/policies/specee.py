"""SpecEE: a light predictor a layer decides where a token leaves (Xu et al., ISCA 2025).

``lossless``: it decides how deep a draft goes and how many there are; all are verified. ``approximate``: as
published, the token leaves for good, if the full head's token is among the drafter's candidates.
"""

from __future__ import annotations

import warnings
from typing import Literal, get_args

from specee.errors import ConfigurationError
from specee.policies import settings
from specee.policies.checks import needed_exits
from specee.policies.exit_schedule import ExitSchedule
from specee.policies.lengths import Lengths
from specee.policies.plans import (
    Draft,
    ExitView,
    Leave,
    LeaveEarly,
    ModelView,
    Needs,
    Observation,
    Outcome,
    PredictedExit,
    SequenceView,
    Speculate,
)
from specee.policies.risk import certified, generations_needed
from specee.policies.rounds import ASKING_TURNS

Mode = Literal["lossless", "approximate"]
Layers = Literal["scheduled", "all"]

WAITING = 16
"""Rows that may wait where they left."""


class SpecEE:
    """Early exits by the loaded speculator's predictors.

    ``threshold``: of a predictor's chance, above which a row leaves. ``layers``: those that are checked, by
    two-level scheduling or all. ``lossless`` drafts ``speculation_length`` tokens at first and ``longest`` at
    most. ``approximate`` may be given ``max_disagreement``, instead of the threshold: a bound on the expected
    share of a generation's tokens that are not the full model's most likely ones after the same text (see
    :mod:`.risk`, docs/specee.md); where the calibration of the speculator file cannot certify it, nothing
    leaves early, and a warning says what would. Raises ConfigurationError.
    """

    name = "specee"

    def __init__(
        self,
        mode: Mode = "lossless",
        layers: Layers = "scheduled",
        threshold: float = 0.5,
        speculation_length: int = 3,
        longest: int = 8,
        *,
        max_disagreement: float | None = None,
    ) -> None:
        self._approximate = settings.one_of(self.name, "mode", mode, get_args(Mode)) == "approximate"
        self._everywhere = settings.one_of(self.name, "layers", layers, get_args(Layers)) == "all"
        self._threshold = settings.share(self.name, "threshold", threshold)
        self._lengths = Lengths(self.name, speculation_length, longest)
        self._bound = max_disagreement
        if max_disagreement is not None:
            bound = settings.share(self.name, "max_disagreement", max_disagreement)
            if not self._approximate or self._everywhere or not 0 < bound < 1:
                raise ConfigurationError(
                    f"policy specee: max_disagreement={max_disagreement} with mode={mode!r} and "
                    f"layers={layers!r}: allowed are numbers between 0 and 1 with mode='approximate' and the "
                    "layers that calibrations are made with, 'scheduled'; lossless decoding does not disagree"
                )

    def begin(self, model: ModelView) -> Needs:
        """Forget all texts. Raises ConfigurationError for a model without predictors."""
        exits = needed_exits(model.exits)
        self._lengths.forget()
        self._schedule = ExitSchedule(exits.layers, exits.shares, everywhere=self._everywhere)
        self._chosen: float | None = self._threshold
        if self._bound is not None:
            self._chosen = _certified(exits, self._bound)
        return Needs((PredictedExit(self._threshold if self._chosen is None else self._chosen),))

    @property
    def threshold(self) -> float | None:
        """What is left by; None where a bound cannot be certified and nothing leaves."""
        return self._chosen

    def plan(self, observation: Observation) -> Speculate | LeaveEarly:
        """Every sequence by itself."""
        if self._approximate:
            return LeaveEarly(tuple([self._leave(view) for view in observation.sequences]))
        return Speculate(tuple([self._draft(view) for view in observation.sequences]), turns=ASKING_TURNS)

    def observe(self, outcome: Outcome) -> None:
        """Where tokens left, and how many drafts were right."""
        self._lengths.observe(outcome)
        for entry in outcome.rounds:
            self._schedule.observe(entry.sequence, entry.exits)

    def _leave(self, view: SequenceView) -> Leave:
        if self._chosen is None:
            return Leave(view.id, (), 1.0)
        return Leave(view.id, self._schedule.of(view.id), self._chosen, WAITING)

    def _draft(self, view: SequenceView) -> Draft:
        length = 0 if view.fresh else min(self._lengths.of(view.id), view.remaining - 1)
        layers = self._schedule.of(view.id)
        return Draft(view.id, PredictedExit(self._threshold), length, layers=layers)


def _certified(exits: ExitView, bound: float) -> float | None:
    if not exits.thresholds:
        warnings.warn(
            f"specee: max_disagreement={bound} cannot be certified: the speculator file was not calibrated "
            "for the format of these weights; nothing leaves early. Calibrate it with specee fit, or give a "
            "threshold",
            stacklevel=2,
        )
        return None
    found = certified(exits.thresholds, exits.losses, exits.generations, bound)
    if found is None:
        needed = generations_needed(exits.losses[0], bound)
        more = "no number of generations would" if needed is None else f"about {needed} would be needed"
        warnings.warn(
            f"specee: max_disagreement={bound} cannot be certified with {exits.generations} generations "
            f"({more}, at the loss of {exits.losses[0]:.4f} seen at threshold {exits.thresholds[0]:g}); "
            "nothing leaves early",
            stacklevel=2,
        )
    return found
