"""The time that looks may take, in plain Python; test_native_exits.py compares what native looks take."""

from __future__ import annotations

import random

import pytest

from tests.unit.plain_shadow_budget import ASIDE, DRAFTING, NEAR, ShadowBudget


def test_looks_never_take_more_than_their_share() -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    rng = random.Random(seed)
    refused = 0
    for _ in range(100):
        budget, plain = ShadowBudget(), rng.uniform(1e-3, 1e-1)
        steps = rng.randint(1, 300)
        spent = aside = drafting = 0.0
        for left in range(steps, 0, -1):
            pays, near = rng.random() < 0.4, rng.random() < 0.3
            cost = rng.uniform(0, 0.5) * plain
            share = NEAR if near else ASIDE
            can_spend = budget.left(left * plain, near=near)
            may = share * (aside + left * plain / 2) + DRAFTING * drafting
            assert can_spend == pytest.approx(may - spent, abs=1e-12)
            allowed = cost <= can_spend
            refused += not allowed
            shadow, seconds = cost if allowed else 0.0, plain * rng.uniform(0.9, 1.1)
            budget.note(seconds + shadow, shadow, drafting=pays)
            spent += shadow
            aside += 0.0 if pays else seconds + shadow
            drafting += seconds + shadow if pays else 0.0
            assert (
                spent <= NEAR * (aside + left * plain / 2 + plain) + DRAFTING * drafting + shadow * DRAFTING
            )
    assert refused > 100


def test_a_short_text_affords_no_look() -> None:
    budget = ShadowBudget()
    assert budget.left(1.0, near=True) < 0.1 < budget.left(100.0, near=True)
    assert budget.left(1.0, near=False) < 0.1
    budget.note(1.0, 0.0, drafting=True)
    budget.note(1.0, 0.0, drafting=True)
    assert budget.left(1.0, near=False) > 0.1
