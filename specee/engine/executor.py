"""Plans into backend calls. The only place that knows what a plan means."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from specee.backends.protocol import Backend, Work
from specee.engine.sequence import ActiveSequence
from specee.policies import NextToken, Observation, Outcome, Plan


class Executor:
    """Runs plans on the sequences of one generation."""

    def __init__(self, backend: Backend, sequences: Mapping[int, ActiveSequence]) -> None:
        self._backend = backend
        self._sequences = sequences
        self._handlers: dict[type, Callable[[Any], dict[int, tuple[int, ...]]]] = {
            NextToken: self._next_token
        }

    def run(self, plan: Plan, observation: Observation) -> Outcome:
        """Carry out a plan made for ``observation``. Tokens it gives are not committed yet."""
        begin = time.perf_counter()
        tokens = self._handlers[type(plan)](plan)
        # A plan of today completes every pending position of its sequences.
        rows = sum(view.length - view.frontier[-1] for view in observation.sequences if view.id in tokens)
        return Outcome(tokens, rows=rows, seconds=time.perf_counter() - begin)

    def _next_token(self, plan: NextToken) -> dict[int, tuple[int, ...]]:
        sequences = [self._sequences[index] for index in plan.sequences]
        work: Work = [(sequence.state, [sequence.state.length - 1]) for sequence in sequences]
        self._backend.advance(work, self._backend.config.num_layers)
        sampling = [sequence.request.sampling for sequence in sequences]
        greedy = all(option.temperature == 0 for option in sampling)
        drawn = self._backend.argmax(work) if greedy else self._backend.sample(work, sampling)
        return {sequence.id: (int(token),) for sequence, token in zip(sequences, drawn, strict=True)}
