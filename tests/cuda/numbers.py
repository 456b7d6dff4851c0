"""bf16 in numpy, and error bounds of sums in fp32."""

from __future__ import annotations

import numpy as np

UNIT = 2.0**-24  # unit round-off of fp32


def to_bf16(x: np.ndarray) -> np.ndarray:
    """Bits of bf16, rounded to nearest even, of finite fp32 values."""
    bits = np.asarray(x, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def from_bf16(bits: np.ndarray) -> np.ndarray:
    return (bits.astype(np.uint32) << 16).view(np.float32)


def dot_bound(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """How far ``a @ b.T`` in fp32 may be from exact, in any order of its k terms (Higham, section 3.1).

    A matrix instruction adds products with truncation: twice the unit round-off for each of its terms.
    """
    k = a.shape[-1]
    exact = np.abs(a.astype(np.float64)) @ np.abs(b.astype(np.float64)).T
    return 2 * (k + 16) * UNIT * exact + k * 2.0**-125
