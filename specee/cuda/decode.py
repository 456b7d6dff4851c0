"""Decode rounds as programs: what a model's own kernels do is put in where it belongs.

A round is recorded once for a model, with arrays for as many sequences and drafts as there may be; which
layers run and how much is drafted is in the plan's record, each time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from collections.abc import Sequence as Seq
from dataclasses import dataclass

from specee.cuda.acceptance import Accepted
from specee.cuda.arrays import Array, address, stream_of
from specee.cuda.graph import Means, Round, driver
from specee.cuda.launcher import Launcher
from specee.cuda.program import Program, Recorder
from specee.cuda.record import ROUND_RESULT, SequenceOutcome, SequencePlan, decode, encode
from specee.cuda.round import (
    Drafted,
    RoundState,
    begin_round,
    end_round,
    take_drafts,
)
from specee.errors import ConfigurationError


@dataclass(frozen=True)
class Model:
    """A model's part of a round; each is called once, with the launcher that records.

    ``enter``: rows to where the first layer takes them from, if that is anything. ``layer``: all rows
    through one layer. ``head``: from all rows' last states to accepted drafts
    (:func:`specee.cuda.acceptance.target_pieces` and :func:`~specee.cuda.acceptance.accept`). ``draft``: a
    draft after each sequence's newest row, for rounds that draft; ``before_drafts``: what the first one
    wants, or drafts that are there already, and ``behind_draft``: what another one wants, where there is to
    be one.
    """

    layer: Callable[[Launcher, int], None]
    head: Callable[[Launcher], Accepted]
    draft: Callable[[Launcher], Drafted] | None = None
    enter: Callable[[Launcher], None] | None = None
    before_drafts: Callable[[Recorder], None] | None = None
    behind_draft: Callable[[Recorder], None] | None = None


def decode_round(state: RoundState, model: Model) -> Program:
    """Drafts while somebody makes them, then layers as the plan has them, the head, and acceptance.

    Without ``model.draft`` nothing is drafted. Raises ConfigurationError.
    """
    layers, _, each = state.sizes()
    if model.draft is not None and each < 2:
        raise ConfigurationError(
            "drafts with one row a sequence: give each sequence a row for every draft too"
        )
    recorder = Recorder()
    begin_round(recorder, state)
    if model.before_drafts is not None:
        model.before_drafts(recorder)
    if model.draft is not None:
        with recorder.repeat(state.drafts_made()):
            take_drafts(recorder, state, model.draft(recorder))
            if model.behind_draft is not None:
                with recorder.when(state.drafts_made()):
                    model.behind_draft(recorder)
    if model.enter is not None:
        model.enter(recorder)
    for layer in range(layers):
        with recorder.when(state.layer_runs(layer)):
            model.layer(recorder, layer)
    end_round(recorder, state, model.head(recorder))
    return recorder.program()


class DecodeRound:
    """A recorded round with its records: a plan goes in, one launch, and what came of it is read back.

    Any thread may run it. ``how`` and ``reason`` as of :class:`specee.cuda.graph.Round`, which says what is
    raised.
    """

    def __init__(self, state: RoundState, model: Model, means: Means) -> None:
        _, self._sequences, self._each = state.sizes()
        self._state = state
        self._driver = driver(means.library)
        self._context = self._driver.context()
        self._round = Round(decode_round(state, model), means)
        self.how, self.reason = self._round.how, self._round.reason

    def run(
        self,
        layers: Iterable[int],
        sequences: Seq[SequencePlan],
        records: Seq[tuple[Array, bytes]] = (),
    ) -> tuple[int, tuple[SequenceOutcome, ...]]:
        """How many layers ran, and what each sequence has of it; on the current stream of the plan's library.

        ``records``: what else goes in, and where. Raises ConfigurationError for a plan that the round has no
        rows for, and DeviceError.
        """
        most = max((plan.drafts for plan in sequences), default=0)
        if len(sequences) > self._sequences or most >= self._each:
            raise ConfigurationError(
                f"{len(sequences)} sequences with up to {most} drafts: this round has room for "
                f"{self._sequences}, and {self._each - 1} drafts of each"
            )
        stream = stream_of(self._state.plan)
        for array, record in ((self._state.plan, encode(layers, sequences)), *records):
            self._driver.copy_in(address(array), record, stream, self._context)
        self._round.launch(stream)
        data = self._driver.copy_out(
            address(self._state.result), ROUND_RESULT.itemsize, stream, self._context
        )
        return decode(data, len(sequences))
