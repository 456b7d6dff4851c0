"""Copies: how far they are trusted."""

from __future__ import annotations

import pytest

from specee.policies.lookup_choice import LookupChoice
from tests.unit.judged import objective


def test_copies_pay_until_they_fail() -> None:
    choice, judge = LookupChoice(), objective()
    first = choice.rate(0)
    assert first == 0.7
    for now in range(1, 6):
        choice.learn(5, 5, now)
    good = choice.best(judge, 5)
    assert choice.rate(5) > 0.9
    assert good.length > 5
    for now in range(6, 46):
        choice.learn(5, 0, now)
    bad = choice.best(judge, 45)
    assert choice.rate(45) < 0.2
    assert bad.value < good.value
    assert choice.rate(1000) == pytest.approx(first), "what did not pay is tried again"
    alone = LookupChoice()
    alone.learn(4, 2, 1)  # two right and the third wrong: the fourth says nothing
    assert alone.rate(1) == pytest.approx((2 + 0.7) / (3 + 1))
