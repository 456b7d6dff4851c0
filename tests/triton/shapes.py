"""Sizes that nobody chose."""

from __future__ import annotations

import random


def drawn(seed: int, *ranges: tuple[int, int]) -> list[int]:
    """One number from each range, both ends included; printed, as the seed is."""
    made = random.Random(seed)
    sizes = [made.randint(low, high) for low, high in ranges]
    print(f"sizes {sizes}")
    return sizes
