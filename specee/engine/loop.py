"""The generation loop, one screen long: observe, plan, run, commit."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence as Seq
from dataclasses import dataclass

from specee.backends.protocol import Backend
from specee.engine.executor import Executor
from specee.engine.sequence import ActiveSequence
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
    leaves sequences that can be continued or rolled back.
    """

    def __init__(self, backend: Backend, sequences: Seq[ActiveSequence], policy: Policy) -> None:
        self.sequences = {sequence.id: sequence for sequence in sequences}
        self.timing = Timing()
        self.steps = 0
        self._policy = policy
        self._executor = Executor(backend, self.sequences)

    def __iter__(self) -> Iterator[dict[int, tuple[int, ...]]]:
        """Step until nothing is left to do."""
        while any(sequence.finish_reason is None for sequence in self.sequences.values()):
            yield self.step()

    def step(self) -> dict[int, tuple[int, ...]]:
        """One turn of the loop."""
        observation = self._observe()
        plan = self._policy.plan(observation)
        outcome = self._executor.run(plan, observation)
        return self._commit(outcome)

    def _observe(self) -> Observation:
        running = (s for s in self.sequences.values() if s.finish_reason is None)
        return Observation(tuple(sequence.view() for sequence in running))

    def _commit(self, outcome: Outcome) -> dict[int, tuple[int, ...]]:
        committed = {index: self.sequences[index].accept(tokens) for index, tokens in outcome.tokens.items()}
        self._policy.observe(outcome)
        if self.steps == 0:
            self.timing.prompt += outcome.seconds
        else:
            self.timing.decode += outcome.seconds
        self.steps += 1
        return committed
