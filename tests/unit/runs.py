"""What the tests of the engine share: runs, decoding by hand, Ctrl-C, a policy that is told what to say."""

from __future__ import annotations

from collections.abc import Sequence

from specee.backends import plain_rounds
from specee.backends.protocol import (
    Backend,
    DraftHead,
    FittedDrafter,
    FittedExits,
    RoundCall,
    RoundTurn,
    Work,
)
from specee.engine import BURST, Generation, Request, reserve
from specee.policies import (
    ModelView,
    Needs,
    Observation,
    Outcome,
    Plan,
    make_policy,
)
from specee.types import Sampling
from tests.random_model import BASE


def generation(
    backend: Backend, *requests: Request, policy: str = "autoregressive", burst: float = BURST
) -> Generation:
    return Generation(backend, reserve(backend, requests), make_policy(policy), burst=burst)


def by_hand(backend: Backend, prompt: tuple[int, ...], count: int, sampling: Sampling) -> list[int]:
    """Decoding from scratch for every token."""
    text = list(prompt)
    for _ in range(count):
        sequence = backend.sequence(len(text))
        work = [(sequence, [sequence.append(text)[-1]])]
        backend.advance(work, BASE.num_layers)
        text.append(int(backend.sample(work, [sampling])[0]))
    return text[len(prompt) :]


class Interrupted:
    """A backend whose n-th advance meets Ctrl-C, before or after its work."""

    def __init__(self, backend: Backend, at: int, *, after: bool) -> None:
        self._backend, self._left, self._after = backend, at, after

    def __getattr__(self, name: str) -> object:
        return getattr(self._backend, name)

    def advance(self, work: Work, to_layer: int) -> None:
        self._left -= 1
        if self._left == 0 and not self._after:
            raise KeyboardInterrupt
        self._backend.advance(work, to_layer)
        if self._left == 0:
            raise KeyboardInterrupt

    def verify(self, work: Work, sampling: Sequence[Sampling] | None) -> tuple[list[int], float, float]:
        self.advance(work, self._backend.config.num_layers)
        return self._backend.verify(work, sampling)

    def run_rounds(
        self,
        calls: Sequence[RoundCall],
        drafter: FittedDrafter | None = None,
        head: DraftHead | None = None,
        turns: int = 1,
        exits: FittedExits | None = None,
    ) -> list[RoundTurn]:
        return plain_rounds.run_rounds(self, calls, drafter, head, turns, exits)  # type: ignore[arg-type]


class Say:
    """A policy that says what it is told to."""

    name = "say"

    def __init__(self, *plans: Plan, needs: Needs | None = None) -> None:
        self._plans = list(plans)
        self._needs = needs or Needs()
        self.observations: list[Observation] = []
        self.outcomes: list[Outcome] = []

    def say(self, *plans: Plan) -> None:
        """These too, after all others."""
        self._plans += plans

    def begin(self, model: ModelView) -> Needs:
        """What it was told to need; nothing unless told."""
        return self._needs

    def plan(self, observation: Observation) -> Plan:
        self.observations.append(observation)
        return self._plans.pop(0)

    def observe(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
