"""Every feature of the contract, through transformers' own generate and through ours on the same model."""

from __future__ import annotations

import itertools

import pytest

from tests.integrations.cases import GREEDY, SAMPLED
from tests.integrations.contract import (
    POLICIES,
    SPECULATIVE,
    compare,
    compare_sampled,
    small,
)
from tests.tiny_models import FAMILIES

# Each case on two families, with a policy each; half of the cases, on one of them, in every run.
_FAMILIES = itertools.cycle(FAMILIES)
_PAIRS = [
    pytest.param(name, next(_FAMILIES), policy, marks=[pytest.mark.slow] if (case + turn) % 4 else [])
    for case, name in enumerate(GREEDY)
    for turn, policy in enumerate(POLICIES[1:])
]


@pytest.mark.parametrize(("name", "family", "policy"), _PAIRS)
def test_greedy_requests_are_alike(name: str, family: str, policy: str) -> None:
    model = small(family)
    compare(model, GREEDY[name](model), policy)


@pytest.mark.parametrize("name", SAMPLED)
@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_scores_of_sampled_requests_are_alike(name: str, family: str) -> None:
    model = small(family)
    compare_sampled(model, SAMPLED[name](model), SPECULATIVE, seed=len(name))
