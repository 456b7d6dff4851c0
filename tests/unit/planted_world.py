"""A text in which it is known which layers are right, for policies to find out."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from specee.policies import (
    Draft,
    ExitLayer,
    Latency,
    LeaveEarly,
    ModelView,
    NextToken,
    NgramLookup,
    Observation,
    Outcome,
    Plan,
    Policy,
    Round,
    SequenceView,
    Shadow,
    ShadowTokens,
    Speculate,
    Times,
    make_policy,
)

LAYERS = 30
MODEL = ModelView(LAYERS)
# A layer takes 1, the head 2; rows are nearly free.
LATENCY = Latency((1, 16), (1e-4, 1.3e-4), (2e-4, 3e-4), 1e-6, 1e-5)
Rates = Callable[[int, bool], float]


def view(index: int = 0, length: int = 40, remaining: int = 5000, *, fresh: bool = False) -> SequenceView:
    first = 0 if fresh else length - 1
    return SequenceView(index, length, (first,) * LAYERS, remaining)


def begun(policy: str, model: ModelView = MODEL) -> Policy:
    made = make_policy(policy)
    made.begin(model)
    return made


class World:
    """What comes of plans: drafts and shadows are right as often as ``rates`` say; ``copies`` as often."""

    def __init__(self, policy: Policy, rates: Rates, seed: int = 0, count: int = 1, copies: float = 0.0):
        self.policy, self.rates, self.copies = policy, rates, copies
        self.copied = 0.97  # of the tokens that are copied, those that are right
        self.rng = random.Random(seed)
        self.views = {index: view(index, fresh=True) for index in range(count)}
        self.plans: list[Plan] = []
        self.latency = LATENCY
        self.tokens = 0
        self.times: list[Times] = []  # of rounds

    def step(self, together: int = 1) -> Plan:
        """A plan, and as many of its turns as that, if it is good for so many."""
        plan = self.policy.plan(Observation(tuple(self.views.values()), self.latency))
        self.plans.append(plan)
        assert not isinstance(plan, LeaveEarly)
        turns = min(together, plan.turns)
        for turn in range(turns):
            rounds = self._turn(plan, last=turn == turns - 1)
            if any(isinstance(entry.source, NgramLookup) for entry in rounds):
                break
        return plan

    def _turn(self, plan: NextToken | Speculate, *, last: bool) -> list[Round]:
        named = plan.drafts if isinstance(plan, Speculate) else [None] * len(self.views)
        rounds = [self._round(one, draft) for one, draft in zip(self.views.values(), named, strict=True)]
        last = last or any(isinstance(entry.source, NgramLookup) for entry in rounds)
        looks = plan.shadows if last else ()
        shadows = [seen for shadow in looks for seen in self._seen(shadow, rounds)]
        for entry in rounds:
            old = self.views[entry.sequence]
            size = len(entry.tokens)
            self.views[entry.sequence] = view(entry.sequence, old.length + size, old.remaining - size)
            self.tokens += size
        states = sum(len(seen.matches) for seen in shadows)
        shadow = 2e-4 + states * 1e-5 if states else 0.0
        self.times.append(Times(0.0, 0.0, 3e-3, 2e-4, shadow))
        self.policy.observe(Outcome(tuple(rounds), self.times[-1], tuple(shadows)))
        return rounds

    def steps(self, count: int, together: int = 1) -> Plan:
        for _ in range(count):
            plan = self.step(together)
        return plan

    def _round(self, one: SequenceView, draft: Draft | None) -> Round:
        if draft is not None and isinstance(draft.source, NgramLookup) and self.rng.random() > self.copies:
            draft = draft.otherwise
        if draft is None or draft.length == 0:
            return Round(one.id, (1,))
        source, accepted = draft.source, 0
        rate = self.rates(source.layer, source.adapted) if isinstance(source, ExitLayer) else self.copied
        while accepted < draft.length and self.rng.random() < rate:
            accepted += 1
        confidences = (0.9,) * accepted + (0.3,) * (accepted < draft.length)
        confidences += (0.5,) * (draft.length - len(confidences))
        return Round(one.id, (1,) * (accepted + 1), source, draft.length, accepted, confidences)

    def _seen(self, shadow: Shadow, rounds: Sequence[Round]) -> list[ShadowTokens]:
        emitted = next(len(entry.tokens) for entry in rounds if entry.sequence == shadow.sequence)
        found = []
        for layer in shadow.layers:
            rate = self.rates(layer, shadow.adapted)
            matches = tuple([self.rng.random() < rate for _ in range(shadow.positions or emitted)])
            confidences = tuple([0.9 if match else 0.3 for match in matches])
            found.append(ShadowTokens(shadow.sequence, layer, matches, confidences, shadow.adapted))
        return found


def draft_of(plan: Plan, sequence: int = 0) -> Draft | None:
    if isinstance(plan, NextToken):
        return None
    draft = next(draft for draft in plan.drafts if draft.sequence == sequence)
    return draft if draft.length else None


def layer_of(plan: Plan, sequence: int = 0) -> int:
    """0 where no exit layer drafts; one that drafts where there is nothing to copy counts."""
    source = exit_of(plan, sequence)
    return 0 if source is None else source.layer


def exit_of(plan: Plan, sequence: int = 0) -> ExitLayer | None:
    draft = draft_of(plan, sequence)
    while draft is not None and not isinstance(draft.source, ExitLayer):
        draft = draft.otherwise
    return draft.source if draft is not None and isinstance(draft.source, ExitLayer) else None
