"""Plans: refused before any work if wrong, and what a policy hears of them."""

from __future__ import annotations

from typing import Any

import pytest

from specee.backends.protocol import Backend
from specee.engine import Generation, Request, reserve
from specee.errors import CapacityError, ConfigurationError
from specee.policies import (
    Draft,
    ExitLayer,
    NextToken,
    NgramLookup,
    Speculate,
)
from specee.types import Sampling
from tests.random_model import BASE
from tests.unit.runs import Interrupted, Say, by_hand

EXIT = ExitLayer(1)
WRONG_PLANS = {
    "no plan": (ConfigurationError, None),
    "nobody": (ConfigurationError, NextToken(())),
    "twice": (ConfigurationError, NextToken((0, 0))),
    "a stranger": (ConfigurationError, NextToken((7,))),
    "one that is over": (ConfigurationError, Speculate((Draft(0, EXIT, 0), Draft(1, EXIT, 0)))),
    "negative length": (ConfigurationError, Speculate((Draft(0, EXIT, -1),))),
    "first layer is 1": (ConfigurationError, Speculate((Draft(0, ExitLayer(0), 1),))),
    "last layer": (ConfigurationError, Speculate((Draft(0, ExitLayer(BASE.num_layers), 1),))),
    "no such head": (ConfigurationError, Speculate((Draft(0, ExitLayer(1, adapted=True), 1),))),
    "no such source": (ConfigurationError, Speculate((Draft(0, object(), 1),))),  # type: ignore[arg-type]
    "outgrows the cache": (CapacityError, Speculate((Draft(0, EXIT, 8),))),
}


@pytest.mark.parametrize("case", WRONG_PLANS)
def test_a_wrong_plan_is_refused_before_any_work(backend: Backend, case: str) -> None:
    error, plan = WRONG_PLANS[case]
    broken: Any = Interrupted(backend, 2, after=False)  # one advance is the first step's
    run = Generation(
        broken,
        reserve(backend, [Request((1, 2, 3), 9), Request((1,), 1)]),
        Say(NextToken((0, 1)), plan),  # type: ignore[arg-type]
    )
    run.step()
    before = run.sequences[0].state.frontier
    with pytest.raises(error):
        run.step()
    assert run.sequences[0].state.frontier == before
    assert run.sequences[0].state.speculative == ()


def test_a_policy_hears_what_came_of_its_plan(backend: Backend) -> None:
    free = by_hand(backend, (1, 2, 3), 9, Sampling())
    policy = Say(
        NextToken((0,)), Speculate((Draft(0, EXIT, 4),)), Speculate((Draft(0, NgramLookup(1, 1), 2),))
    )
    run = Generation(backend, reserve(backend, [Request((1, 2, 3), 9)]), policy)
    for _ in range(3):
        run.step()
    first, second, third = (outcome.rounds[0] for outcome in policy.outcomes)
    assert (first.source, first.tokens, first.drafted) == (None, (free[0],), 0)
    assert (second.source, second.drafted, len(second.confidences)) == (EXIT, 4, 4)
    assert len(second.tokens) == second.accepted + 1
    assert first.tokens + second.tokens + third.tokens == tuple(free[: len(run.sequences[0].generated)])
    for outcome, seconds in zip(policy.outcomes, run.statistics.step_seconds, strict=True):
        assert 0 < outcome.times.total < seconds
    assert policy.outcomes[1].times.draft > 0
    assert policy.outcomes[2].times.draft == policy.outcomes[2].times.draft_head == 0
    assert run.statistics.steps == [outcome.rounds for outcome in policy.outcomes]
