"""The generation loop: observe, plan, run, commit."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from collections.abc import Sequence as Seq
from typing import Any, NamedTuple

from specee.backends.protocol import Backend
from specee.drafting import Drafter, DraftHeads, built_in
from specee.engine.checks import get_ready, states_kept
from specee.engine.executor import Executor
from specee.engine.latency import LatencyMeter
from specee.engine.passes import in_step, verified_rows
from specee.engine.sequence import ActiveSequence
from specee.engine.settled import Settled
from specee.engine.statistics import Statistics
from specee.policies import (
    DraftCost,
    DraftSource,
    NextToken,
    Observation,
    Outcome,
    Plan,
    Policy,
    Round,
    Speculate,
)

_PLAIN_STEPS = 8  # of which one refines the latency table
BURST = 0.03
"""Seconds for which tokens are gathered: less than the eye notices."""
_TICK = 1e-6  # what no turn is shorter than


class Timing(NamedTuple):
    """Seconds of the first step, which computes the prompts and gives the first tokens, and of all others."""

    prompt: float
    decode: float


class Generation:
    """Continues sequences until all are finished.

    Iterating gives, for each step, the committed tokens by sequence id: those of one turn of the loop, or of
    as many as take ``burst`` seconds together, by the latest; 0 is one at a time. The rows of every sequence
    are exactly its text between steps, also after one that ended in an exception (Ctrl-C, a user's
    processor): the sequences can be continued or rolled back. Tokens that such a step had committed before
    are in ``generated``, but were not given out. ``heads`` are the speculator's; None is none. ``drafters``
    are more draft sources than the built-in ones, by the type that plans name them with. ``latency`` is what
    generations of the same backend share, so that it is measured once. Raises ConfigurationError if the
    policy does not fit the model.
    """

    def __init__(
        self,
        backend: Backend,
        sequences: Seq[ActiveSequence],
        policy: Policy,
        heads: DraftHeads | None = None,
        drafters: Mapping[type[Any], Drafter] | None = None,
        latency: LatencyMeter | None = None,
        burst: float = BURST,
    ) -> None:
        heads = heads or DraftHeads(backend)
        sources = {**built_in(backend, heads), **(drafters or {})}
        needs = get_ready(policy, heads.view, sources)
        self.sequences = {sequence.id: sequence for sequence in sequences}
        self.statistics = Statistics()
        self._running = [sequence for sequence in sequences if sequence.finish_reason is None]
        self._policy = policy
        self._burst = burst
        self._layers = backend.config.num_layers
        self._unseen = 0  # turns since the latest plain one that refined the latency table
        self._executor = Executor(backend, self.sequences, sources, heads, needs.shadow_layers)
        self._latency = (latency or LatencyMeter(backend)) if needs.latency else None
        if self._latency is not None:
            self._latency.table()  # measured now, not within the first step
        kept = states_kept(needs, sources)
        for sequence in self._running:
            sequence.state.keep(kept.layers, kept.positions)

    @property
    def steps(self) -> int:
        """Turns of the loop so far."""
        return len(self.statistics.outcomes)

    @property
    def timing(self) -> Timing:
        """Where the time went."""
        return Timing(self.statistics.prompt_seconds, self.statistics.seconds)

    def cost(self, source: DraftSource) -> DraftCost:
        """What a token drafted by ``source`` costs. Raises ConfigurationError for a source not there."""
        return self._executor.cost(source)

    def __iter__(self) -> Iterator[dict[int, tuple[int, ...]]]:
        """Step until nothing is left to do."""
        while self._running:
            yield self.step()

    def step(self) -> dict[int, tuple[int, ...]]:
        """One turn of the loop, or as many as the plan is good for and fit into ``burst``."""
        begin = time.perf_counter()
        committed: dict[int, tuple[int, ...]] = {}
        try:
            plan = self._policy.plan(self._observation())
            outcomes: list[Outcome] = []
            for settled, clock in self._executor.run(plan, self._turns(plan)):
                outcomes.append(Outcome(self._commit(settled, committed), clock.times))
            spent = time.perf_counter() - begin
            self._count(outcomes, spent)
            if self._latency is not None:
                self._refine(plan, outcomes)
            if plan.shadows:  # what was committed is counted, also when this is interrupted
                outcomes[-1] = self._executor.look(plan, committed, outcomes[-1], clock)
                self.statistics.amend(outcomes[-1], time.perf_counter() - begin - spent)
            for outcome in outcomes:
                self._policy.observe(outcome)
        except BaseException:
            self._restore()
            raise
        return committed

    def _turns(self, plan: Plan) -> int:
        """How many may be taken together. The first token of a text is out at once.

        The plan has not been checked yet.
        """
        if not isinstance(plan, (NextToken, Speculate)) or type(plan.turns) is not int:
            return 1
        known = self.statistics.outcomes  # of an interrupted step nothing may be known
        if not known or True in [one.remaining == one.request.max_new_tokens for one in self._running]:
            return 1
        latest = self.statistics.step_seconds[-1] - known[-1].times.shadow
        return max(1, min(plan.turns, int(self._burst / max(latest, _TICK))))

    def _count(self, outcomes: Seq[Outcome], spent: float) -> None:
        """What was spent outside of backend calls is every turn's alike."""
        around = (spent - sum([outcome.times.total for outcome in outcomes])) / len(outcomes)
        for outcome in outcomes:
            self.statistics.add(outcome, outcome.times.total + around)

    def _observation(self) -> Observation:
        views = tuple([sequence.view() for sequence in self._running])
        return Observation(views, None if self._latency is None else self._latency.table())

    def _refine(self, plan: Plan, outcomes: Seq[Outcome]) -> None:
        """By the latest turn; of plain ones, which are all alike, a few are enough. Not by the prompt's."""
        outcome, seconds = outcomes[-1], self.statistics.step_seconds[-1]
        self._unseen += len(outcomes)
        if not max([entry.drafted for entry in outcome.rounds]):
            if self._unseen < _PLAIN_STEPS:
                return
            self._unseen = 0
        if self._latency is not None and self.steps > 1 and in_step(plan, outcome.rounds):
            rows, parts = verified_rows(outcome.rounds, self._layers)
            self._latency.observe(rows, parts, outcome.times, seconds, len(outcomes))

    def _commit(self, done: Seq[Settled], committed: dict[int, tuple[int, ...]]) -> tuple[Round, ...]:
        for one in done:
            one.commit()
            index, tokens = one.sequence.id, one.round.tokens
            committed[index] = committed[index] + tokens if index in committed else tokens
            if one.end is not None:
                self._running.remove(one.sequence)
                self._executor.ended(one.sequence)
        return tuple([one.round for one in done])

    def _restore(self) -> None:
        """After a step that failed: each sequence has had it, or has not."""
        for sequence in self._running:
            sequence.restore()
        self._executor.ended()
        self._running = [sequence for sequence in self._running if sequence.finish_reason is None]
