"""How much may differ: thresholds that hold a bound on the expected loss, by Learn-then-Test.

Angelopoulos et al., "Learn then Test: Calibrating predictive algorithms to achieve risk control", 2021. A
threshold is certified for a bound alpha if the hypothesis "its expected loss is over alpha" is rejected on n
generations, losses in [0, 1]; thresholds are tried in a fixed order, the most careful one first, until one is
not rejected, which needs no correction for their number (fixed-sequence testing).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

DELTA = 0.05
"""Chance, over the generations of a calibration, that a certified threshold's expected loss is over alpha."""

_MOST = 1 << 24


def p_value(mean: float, count: int, alpha: float) -> float:
    """Of a mean loss over ``count`` generations, if the expected loss were ``alpha`` or more.

    The Hoeffding-Bentkus inequality (Bates et al., "Distribution-free, risk-controlling prediction sets",
    2021): the smaller of exp(-n kl(mean, alpha)) and e P(Binomial(n, alpha) <= ceil(n mean)).
    """
    if mean >= alpha:
        return 1.0
    hoeffding = math.exp(-count * _divergence(mean, alpha))
    bentkus = math.e * _at_most(math.ceil(count * mean), count, alpha)
    return min(1.0, hoeffding, bentkus)


def certified(
    thresholds: Sequence[float], means: Sequence[float], count: int, alpha: float, delta: float = DELTA
) -> float | None:
    """The least careful threshold that holds ``alpha``, None if not even the first does.

    ``thresholds`` in the order in which they are tried, with the ``means`` of their losses.
    """
    found = None
    for threshold, mean in zip(thresholds, means, strict=True):
        if p_value(mean, count, alpha) > delta:
            break
        found = threshold
    return found


def generations_needed(mean: float, alpha: float, delta: float = DELTA) -> int | None:
    """How many would certify ``alpha`` if their mean loss were ``mean``; None if none do."""
    if mean >= alpha:
        return None
    low, high = 0, 1
    while p_value(mean, high, alpha) > delta:
        low, high = high, high * 2
        if high > _MOST:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if p_value(mean, middle, alpha) <= delta else (middle, high)
    return high


def _divergence(p: float, q: float) -> float:
    """Of Bernoulli distributions, in nats."""
    parts = ((p, q), (1 - p, 1 - q))
    return sum(a * math.log(a / b) for a, b in parts if a > 0)


def _at_most(successes: int, count: int, chance: float) -> float:
    """P(Binomial(count, chance) <= successes)."""
    log, complement = math.log(chance), math.log1p(-chance)
    total = 0.0
    for k in range(min(successes, count) + 1):
        ways = math.lgamma(count + 1) - math.lgamma(k + 1) - math.lgamma(count - k + 1)
        total += math.exp(ways + k * log + (count - k) * complement)
    return min(1.0, total)
