"""The interpreter's products as the tests of the kernels have them."""

from __future__ import annotations

import numpy as np

from tests.triton.interpreter import ordered_product


def test_a_row_has_the_same_bits_wherever_it_is_in_a_tile(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a = rng.standard_normal((16, 128)).astype(np.float32)
    b = rng.standard_normal((128, 16)).astype(np.float32)
    order = rng.permutation(16)
    product = ordered_product(a, b, np.dtype(np.float32))
    np.testing.assert_array_equal(ordered_product(a[order], b, np.dtype(np.float32)), product[order])
    alone = np.zeros_like(a)
    alone[0] = a[9]
    np.testing.assert_array_equal(ordered_product(alone, b, np.dtype(np.float32))[0], product[9])


def test_halves_are_widened_before_they_are_multiplied(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = (rng.standard_normal(shape).astype(np.float16) for shape in ((16, 40), (40, 16)))
    exact = a.astype(np.float64) @ b.astype(np.float64)
    off = np.abs(ordered_product(a, b, np.dtype(np.float32)) - exact)
    bound = 40 * 2.0**-24 * np.abs(a.astype(np.float64)) @ np.abs(b.astype(np.float64))
    assert (off <= bound).all()
    assert (off < np.abs(ordered_product(a, b, np.dtype(np.float16)) - exact).max()).all()
