"""Numbers as people write them."""

from __future__ import annotations

import math
from collections.abc import Mapping


def short(value: float) -> str:
    """Three significant digits, more only where the whole number has more: 394, 38.2, 1.02, 0.0051."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else str(value)
    rounded = float(f"{value:.3g}")  # 9.996 is 10.0, not 10.00
    decimals = max(0, 2 - math.floor(math.log10(abs(rounded))))
    return f"{value:,.{decimals}f}"


def ranged(spread: Mapping[str, float], unit: str = "") -> str:
    """Median with its range: ``4.2x (2.9 to 5.6)``."""
    return f"{short(spread['median'])}{unit} ({short(spread['min'])} to {short(spread['max'])})"


def percent(share: float) -> str:
    """A share in percent, without decimals."""
    return f"{share:.0%}"


def percent_ranged(spread: Mapping[str, float]) -> str:
    """Median share with its range."""
    return f"{percent(spread['median'])} ({percent(spread['min'])} to {percent(spread['max'])})"


def megabytes(count: float) -> str:
    """Bytes in MB of 10^6."""
    return f"{short(count / 1e6)} MB"


def seconds(value: float) -> str:
    """A time in the unit that leaves few digits."""
    for unit, factor in (("s", 1.0), ("ms", 1e3), ("µs", 1e6)):
        if value * factor >= 1 or unit == "µs":
            return f"{short(value * factor)} {unit}"
    raise AssertionError
