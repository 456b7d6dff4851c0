"""Policies are pure: data in, data out, no model in sight."""

from __future__ import annotations

import pytest

from specee.errors import ConfigurationError
from specee.policies import NextToken, Observation, Outcome, SequenceView, make_policy, policy_names


def views(*ids: int) -> Observation:
    return Observation(tuple(SequenceView(id=i, length=4, frontier=(4, 3), remaining=9) for i in ids))


def test_autoregressive_plans_a_token_for_everyone() -> None:
    policy = make_policy("autoregressive")
    assert policy.plan(views(0, 3)) == NextToken((0, 3))
    policy.observe(Outcome({0: (5,), 3: (6,)}, rows=2, seconds=0.1))
    assert policy.plan(views(0, 3)) == NextToken((0, 3))


def test_each_policy_is_fresh_and_knows_its_name() -> None:
    for name in policy_names():
        assert make_policy(name).name == name
        assert make_policy(name) is not make_policy(name)


def test_unknown_policy_lists_those_that_exist() -> None:
    with pytest.raises(ConfigurationError, match=r"policy='magic'.*autoregressive"):
        make_policy("magic")
