"""When layers are looked at, and that what a look has shown stays."""

from __future__ import annotations

import pytest

from specee.policies import Latency, ModelView, Observation, SequenceView, make_policy
from specee.policies.lookup_choice import LookupChoice
from specee.policies.objective import Objective
from tests.unit.native_exits import NativeExitChoice

LAYERS = 30
TABLE = Latency((1, 16), (6e-5, 2.6e-4), (6e-4, 1.7e-3), 1.5e-5, 1e-4)


def looked_at(length: int, remaining: int) -> int:
    """Layers that are looked at together with a prompt of so many tokens."""
    policy = make_policy("del")
    policy.begin(ModelView(LAYERS))
    view = SequenceView(0, length, (0,) * LAYERS, remaining)
    plan = policy.plan(Observation((view,), TABLE))
    return sum(len(shadow.layers) for shadow in plan.shadows)


@pytest.mark.parametrize("length", [5, 50, 500])
def test_a_prompt_is_looked_at_where_the_answer_may_be_long(length: int) -> None:
    assert looked_at(length, remaining=256) == 4


def test_a_look_is_as_large_as_the_budget() -> None:
    layers = [looked_at(20, remaining) for remaining in (8, 100, 120, 256)]
    assert layers == sorted(layers)
    assert layers[0] == 0
    assert 0 < layers[1] < 4


def test_a_surprise_does_not_take_what_the_same_look_has_shown() -> None:
    choice = NativeExitChoice([(layer, 1.0) for layer in range(1, LAYERS)])
    objective = Objective(TABLE, LAYERS)
    choice.learn(11, [True] * 40, [0.9] * 40, 0)
    choice.learn(18, [True] * 4, [0.9] * 4, 1)
    choice.learn(11, [False] * 40, [0.9] * 40, 1)  # a surprise: another text
    best = choice.best(objective, 10)
    assert best is not None
    assert best.layer == 18, "4 * 0.95^9 drafts' worth; a quarter of it would be forgotten by now"


def test_copies_that_fail_are_soon_short_after_a_long_run_of_right_ones() -> None:
    choice = LookupChoice()
    for now in range(30):
        choice.learn(17, 17, now)
    assert choice.rate(30) > 0.9
    for now in range(30, 38):
        choice.learn(17, 0, now)
    assert choice.rate(38) < 0.65
