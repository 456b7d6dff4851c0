"""Rows that the reference backend's predictors are asked about together: nodes of token trees, one by one."""

from __future__ import annotations

from collections.abc import Sequence as Seq

from specee.backends.protocol import Answer, AskCall, ExitRows
from specee.backends.reference_exits import ExitRow, ReferenceExits, Scorer, checked_candidates
from specee.errors import ConfigurationError, RowError


class ReferenceExitRows:
    """See :meth:`.Backend.exit_rows`."""

    def __init__(self, predictors: ReferenceExits, candidates: Seq[Seq[int]]) -> None:
        wrong = [len(one) for one in candidates if len(one) != predictors.candidates]
        if wrong:
            raise RowError(
                f"{wrong[0]} candidates for a row: give {predictors.candidates}, as many as the predictors "
                "know"
            )
        if candidates:
            checked_candidates(candidates, len(candidates), predictors.config)
        self.predictors = predictors
        self.rows = [ExitRow(list(one)) for one in candidates]


def ask(backend: Scorer, rows: ExitRows, layer: int, calls: Seq[AskCall]) -> list[Answer]:
    """See :meth:`.Backend.ask_exits`."""
    config = backend.config
    if not isinstance(rows, ReferenceExitRows) or rows.predictors.config is not config:
        raise ConfigurationError(
            f"{type(rows).__name__} of another backend or model: make rows to ask about with this backend's "
            "exit_rows()"
        )
    rows.predictors.check([layer])
    _check(rows, layer, calls)
    work = [(call.sequence, call.slots) for call in calls]
    asked = [rows.rows[index] for call in calls for index in call.rows]
    chances = iter(backend.chances(rows.predictors, layer, work, asked))
    answers = []
    for call in calls:
        for slot, index in zip(call.slots, call.rows, strict=True):
            position = call.sequence.row(slot).position + 1
            token = rows.rows[index].choose(config.vocab_size, call.sampling, position)
            answers.append(Answer(next(chances), token))
    return answers


def _check(rows: ReferenceExitRows, layer: int, calls: Seq[AskCall]) -> None:
    for call in calls:
        if len(call.slots) != len(call.rows):
            raise RowError(
                f"{len(call.slots)} slots and {len(call.rows)} rows to ask about: give as many of both"
            )
        for slot in call.slots:
            if (done := call.sequence.row(slot).done) != layer:
                raise RowError(
                    f"the row in slot {slot} has done {done} layers: advance it to layer {layer}, and no "
                    "further, to ask there"
                )
    asked = [index for call in calls for index in call.rows]
    if wrong := [index for index in asked if not 0 <= index < len(rows.rows)]:
        raise RowError(f"row {wrong[0]} of {len(rows.rows)} rows to ask about: give one that has candidates")
    if len(asked) != len(set(asked)):
        raise RowError("a row is asked about twice in one call: name each once")
