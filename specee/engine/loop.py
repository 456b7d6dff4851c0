"""The generation loop: one turn of it, ``step``, is observe, plan, run, commit."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from collections.abc import Sequence as Seq
from typing import Any, NamedTuple

from specee.backends.protocol import Backend
from specee.clock import Clock
from specee.drafting import Drafter, DraftHeads, built_in
from specee.engine.checks import get_ready, states_kept
from specee.engine.executor import Executor
from specee.engine.latency import LatencyMeter
from specee.engine.passes import draft_turns, in_step, verified_rows
from specee.engine.sequence import ActiveSequence
from specee.engine.settled import Settled
from specee.engine.statistics import Statistics
from specee.policies import DraftCost, DraftSource, Observation, Outcome, Plan, Policy

_PLAIN_STEPS = 8  # of which one refines the latency table


class Timing(NamedTuple):
    """Seconds of the first step, which computes the prompts and gives the first tokens, and of all others."""

    prompt: float
    decode: float


class Generation:
    """Continues sequences until all are finished.

    Iterating gives, for each step, the committed tokens by sequence id. The rows of every sequence are
    exactly its text between steps, also after one that ended in an exception (Ctrl-C, a user's processor):
    the sequences can be continued or rolled back. Tokens that such a step had committed before are in
    ``generated``, but were not given out. ``heads`` are the speculator's; None is none. ``drafters`` are
    more draft sources than the built-in ones, by the type that plans name them with. ``latency`` is what
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
    ) -> None:
        heads = heads or DraftHeads(backend)
        sources = {**built_in(backend, heads), **(drafters or {})}
        needs = get_ready(policy, heads.view, sources)
        self.sequences = {sequence.id: sequence for sequence in sequences}
        self.statistics = Statistics()
        self._running = [sequence for sequence in sequences if sequence.finish_reason is None]
        self._policy = policy
        self._layers = backend.config.num_layers
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
        """One turn of the loop."""
        begin = time.perf_counter()
        try:
            plan = self._policy.plan(self._observation())
            clock = Clock()
            done = self._executor.run(plan, clock)
            committed = self._commit(done)
            outcome = Outcome(tuple([one.round for one in done]), clock.times)
            seconds = time.perf_counter() - begin
            self.statistics.add(outcome, seconds)
            if plan.shadows:  # what was committed is counted, also when this is interrupted
                outcome = self._executor.look(plan, outcome, clock)
                seconds = time.perf_counter() - begin
                self.statistics.amend(outcome, seconds)
            if self._latency is not None:
                self._refine(plan, outcome, seconds)
            self._policy.observe(outcome)
        except BaseException:
            self._restore()
            raise
        return committed

    def _observation(self) -> Observation:
        views = tuple([sequence.view() for sequence in self._running])
        return Observation(views, None if self._latency is None else self._latency.table())

    def _refine(self, plan: Plan, outcome: Outcome, seconds: float) -> None:
        """Of plain steps, which are all alike, a few are enough. The first step is the prompt's."""
        steps, rounds = len(self.statistics.outcomes), outcome.rounds
        if steps % _PLAIN_STEPS and not max([entry.drafted for entry in rounds]):
            return
        if self._latency is not None and steps > 1 and in_step(plan, rounds):
            rows, parts = verified_rows(rounds, self._layers)
            self._latency.observe(rows, parts, outcome.times, seconds, draft_turns(rounds))

    def _commit(self, done: Seq[Settled]) -> dict[int, tuple[int, ...]]:
        committed = {}
        for one in done:
            one.commit()
            committed[one.sequence.id] = one.round.tokens
            if one.end is not None:
                self._running.remove(one.sequence)
                self._executor.ended(one.sequence)
        return committed

    def _restore(self) -> None:
        """After a step that failed: each sequence has had it, or has not."""
        for sequence in self._running:
            sequence.restore()
        self._executor.ended()
        self._running = [sequence for sequence in self._running if sequence.finish_reason is None]
