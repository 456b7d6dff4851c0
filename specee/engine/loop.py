"""The generation loop, one screen long: observe, plan, run, commit."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from typing import Any

from specee.backends.protocol import Backend
from specee.drafting import Drafter, DraftHeads, built_in
from specee.engine.executor import Emission, Executor
from specee.engine.sequence import ActiveSequence
from specee.engine.statistics import Statistics
from specee.policies import Observation, Outcome, Policy


@dataclass
class Timing:
    """Seconds of the first step, which computes the prompts and gives the first tokens, and of all others."""

    prompt: float = 0.0
    decode: float = 0.0


class Generation:
    """Continues sequences until all are finished.

    Iterating gives, for each step, the committed tokens by sequence id. Between steps the rows of every
    sequence are exactly its text, so stopping there, by leaving the loop or by an exception (Ctrl-C),
    leaves sequences that can be continued or rolled back. ``heads`` are the speculator's; None is none.
    ``drafters`` are more draft sources than the built-in ones, by the type that plans name them with. Raises
    ConfigurationError if the policy does not fit the model.
    """

    def __init__(
        self,
        backend: Backend,
        sequences: Seq[ActiveSequence],
        policy: Policy,
        heads: DraftHeads | None = None,
        drafters: Mapping[type[Any], Drafter] | None = None,
    ) -> None:
        policy.begin(backend.config.num_layers)
        self.sequences = {sequence.id: sequence for sequence in sequences}
        self.timing = Timing()
        self.statistics = Statistics()
        self._policy = policy
        sources = {**built_in(backend, heads or DraftHeads(backend)), **(drafters or {})}
        self._executor = Executor(backend, self.sequences, sources)

    @property
    def steps(self) -> int:
        """Turns of the loop so far."""
        return len(self.statistics.steps)

    def __iter__(self) -> Iterator[dict[int, tuple[int, ...]]]:
        """Step until nothing is left to do."""
        while any(sequence.finish_reason is None for sequence in self.sequences.values()):
            yield self.step()

    def step(self) -> dict[int, tuple[int, ...]]:
        """One turn of the loop."""
        begin = time.perf_counter()
        observation = self._observe()
        plan = self._policy.plan(observation)
        outcome, emissions = self._executor.run(plan, observation)
        committed = self._commit(emissions)
        self._policy.observe(outcome)
        self._count(outcome, time.perf_counter() - begin)
        return committed

    def _observe(self) -> Observation:
        running = (s for s in self.sequences.values() if s.finish_reason is None)
        return Observation(tuple(sequence.view() for sequence in running))

    def _commit(self, emissions: Seq[Emission]) -> dict[int, tuple[int, ...]]:
        for emission in emissions:
            emission.sequence.commit(emission.tokens, emission.path, emission.end)
        return {emission.sequence.id: emission.tokens for emission in emissions}

    def _count(self, outcome: Outcome, seconds: float) -> None:
        if self.steps == 0:
            self.timing.prompt += seconds
        else:
            self.timing.decode += seconds
        self.statistics.add(outcome, seconds)
