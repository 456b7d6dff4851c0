"""Rounds in which rows may leave early, as programs: SpecEE (Xu et al., ISCA 2025), confirmed by the head.

Recorded once for a model; who is checked where, and which rows wait at which layer, is in the plan's record.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from collections.abc import Sequence as Seq
from dataclasses import dataclass

from specee.cuda.arrays import Array, address, stream_of
from specee.cuda.exit_record import EXIT_RESULT, ExitPlan, ExitRun, decode_exits, encode_exits
from specee.cuda.exits import ExitState, begin_exits, confirm_exits, end_exits, keep_left, willing_exits
from specee.cuda.graph import Means, Round, driver
from specee.cuda.launcher import Launcher
from specee.cuda.program import Program, Recorder
from specee.errors import ConfigurationError


@dataclass(frozen=True)
class ExitModel:
    """A model's part of a round, called with the launcher that records.

    ``enter``: rows to where the first layer takes them from. ``join``: rows that wait before a layer take
    part. ``layer``: all rows through one layer. ``norm``: each sequence's newest row as the head takes it;
    then ``ask``, behind ``checkable`` layers, the predictor's chances (sequences,) fp32 for these, and
    ``head`` the token (sequences,) int32 that the whole head gives after each, in the same array each time.
    ``x`` (rows, hidden) fp32 is where rows are, and ``left`` where they go that have left.
    """

    enter: Callable[[Launcher], None]
    join: Callable[[Launcher, int], None]
    layer: Callable[[Launcher, int], None]
    norm: Callable[[Launcher], None]
    ask: Callable[[Launcher, int], Array]
    head: Callable[[Launcher], Array]
    x: Array
    left: Array
    checkable: Collection[int]


def exit_round(state: ExitState, model: ExitModel) -> Program:
    """Layers until everybody has left; behind those that are checked the head, where somebody is willing.

    Raises ConfigurationError.
    """
    layers, _, each, _ = state.sizes()
    beyond = sorted(layer for layer in model.checkable if not 0 <= layer < layers)
    if beyond:
        raise ConfigurationError(f"checkable layers {beyond}: allowed are 0..{layers - 1}")
    recorder = Recorder()
    begin_exits(recorder, state)
    model.enter(recorder)
    for layer in range(layers):
        with recorder.when(state.layer_runs(layer)):
            if layer and each > 1:  # alone, a row begins at the first
                with recorder.when(state.rows_enter(layer)):
                    model.join(recorder, layer)
            model.layer(recorder, layer)
            if layer in model.checkable:
                with recorder.when(state.layer_checked(layer)):
                    _check(recorder, state, model, layer)
    with recorder.when(state.head_runs()):
        model.norm(recorder)
        targets = model.head(recorder)
        keep_left(recorder, state, model.x, model.left, 0)
    end_exits(recorder, state, targets)
    return recorder.program()


def _check(recorder: Recorder, state: ExitState, model: ExitModel, layer: int) -> None:
    model.norm(recorder)
    chances = model.ask(recorder, layer)
    willing_exits(recorder, state, chances, layer)
    with recorder.when(state.somebody_willing()):
        confirm_exits(recorder, state, chances, model.head(recorder), layer)
        keep_left(recorder, state, model.x, model.left, layer + 1)


class ExitRound:
    """A recorded round with its records: a plan goes in, one launch, and what came of it is read back.

    Any thread may run it. ``how`` and ``reason`` as of :class:`specee.cuda.graph.Round`, which says what is
    raised.
    """

    def __init__(self, state: ExitState, model: ExitModel, means: Means) -> None:
        self._layers, self._sequences, self._each, self._count = state.sizes()
        self._state = state
        self._driver = driver(means.library)
        self._context = self._driver.context()
        self._round = Round(exit_round(state, model), means)
        self.how, self.reason = self._round.how, self._round.reason

    def run(self, plans: Seq[ExitPlan]) -> ExitRun:
        """What came of a plan, on the current stream of the plan's library.

        Raises ConfigurationError for plans that the round has no rows for, and DeviceError.
        """
        most = max((len(plan.tokens) for plan in plans), default=0)
        if len(plans) != self._sequences or most > self._each:
            raise ConfigurationError(
                f"{len(plans)} sequences with up to {most} rows: this round is for {self._sequences}, with "
                f"up to {self._each} each; give a plan for each sequence, or record a round for these"
            )
        for plan in plans:
            self._check(plan)
        stream = stream_of(self._state.plan)
        self._driver.copy_in(address(self._state.plan), encode_exits(plans), stream, self._context)
        self._round.launch(stream)
        data = self._driver.copy_out(address(self._state.result), EXIT_RESULT.itemsize, stream, self._context)
        return decode_exits(data, len(plans))

    def _check(self, plan: ExitPlan) -> None:
        """Raise ConfigurationError for what a record can hold, and this round's arrays cannot."""
        deepest = max(plan.begins, default=0)
        if deepest >= self._layers:
            raise ConfigurationError(
                f"a row that begins at layer {deepest}: allowed are 0..{self._layers - 1}; leave out rows "
                "that are complete"
            )
        if plan.checked and len(plan.candidates) != self._count:
            raise ConfigurationError(
                f"{len(plan.candidates)} candidates of a row that is checked: this round's predictors take "
                f"{self._count}; give as many, or check no layer"
            )
