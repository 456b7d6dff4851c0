"""Learn-then-Test: p-values are valid, tests stop where they should, and what is missing is said."""

from __future__ import annotations

import math

import numpy as np
import pytest

from specee.policies.risk import DELTA, certified, generations_needed, p_value


def test_p_values_at_the_ends() -> None:
    assert p_value(0.1, 100, 0.1) == p_value(0.3, 100, 0.1) == 1.0
    # Nothing lost: Hoeffding's bound is (1 - alpha)^n, which no valid one beats.
    assert p_value(0.0, 50, 0.1) == pytest.approx(0.9**50)
    assert p_value(0.02, 400, 0.1) < p_value(0.02, 100, 0.1) < p_value(0.06, 100, 0.1)


def test_bentkus_is_the_binomial_tail() -> None:
    count, alpha, mean = 60, 0.2, 0.15
    tail = sum(math.comb(count, k) * alpha**k * (1 - alpha) ** (count - k) for k in range(10))
    hoeffding = math.exp(
        -count * (mean * math.log(mean / alpha) + (1 - mean) * math.log((1 - mean) / (1 - alpha)))
    )
    assert p_value(mean, count, alpha) == pytest.approx(min(1, hoeffding, math.e * tail))


@pytest.mark.parametrize("alpha", [0.1, 0.05, 0.02])
def test_a_bound_that_does_not_hold_is_seldom_certified(alpha: float) -> None:
    """Losses whose mean is just over the bound, of three shapes: p-values under delta come up too seldom."""
    rng = np.random.default_rng()
    print("state", rng.bit_generator.state["state"]["state"])
    trials, count = 4000, 200
    draws = {
        "all or nothing": (rng.random((trials, count)) < alpha).astype(float),
        "uniform": rng.uniform(0, 2 * alpha, (trials, count)),
        "few tokens": rng.binomial(32, alpha, (trials, count)) / 32,
    }
    margin = 4 * math.sqrt(DELTA * (1 - DELTA) / trials)
    for name, losses in draws.items():
        wrong = np.mean([p_value(float(mean), count, alpha) <= DELTA for mean in losses.mean(1)])
        assert wrong <= DELTA + margin, name
    # The control: the plain mean, without a test, is under the bound half of the time.
    assert np.mean(draws["uniform"].mean(1) < alpha) > 0.4


def test_the_sequence_stops_at_the_first_that_fails() -> None:
    thresholds = [0.9, 0.7, 0.5, 0.3]
    assert certified(thresholds, [0.0, 0.001, 0.2, 0.0], 200, 0.05) == 0.7
    assert certified(thresholds, [0.0, 0.0, 0.0, 0.0], 200, 0.05) == 0.3
    assert certified(thresholds, [0.04, 0.0, 0.0, 0.0], 200, 0.05) is None
    assert certified(thresholds, [0.0] * 4, 20, 0.05) is None  # too few generations: 0.95^20 > 5 %


def test_how_many_are_missing() -> None:
    needed = generations_needed(0.0, 0.05)
    assert needed is not None
    assert p_value(0.0, needed, 0.05) <= DELTA < p_value(0.0, needed - 1, 0.05)
    assert generations_needed(0.05, 0.05) is None
    close = generations_needed(0.04, 0.05)
    assert close is not None
    assert close > 100 * needed / 10
