"""How far a float32 result may be from the reference: bounds on rounding, none of them fitted.

The error of a sum of n products accumulated in float32 is at most lambda * sqrt(n) * u * |x| |w|, |.| the
Euclidean norm and u = 2^-24, but for a chance of 2n exp(-lambda^2 / 2) (Higham and Mary, 2019): with lambda
= 10, one in 10^17 at the longest sums here.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]

UNIT = 2.0**-24
LAMBDA = 10.0


def norms(rows: npt.NDArray[np.floating]) -> Doubles:
    """Euclidean norm of each row."""
    return np.asarray(np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64)))


def linear(x_norms: Doubles, w_norms: Doubles, k: int) -> Doubles:
    """(rows, outputs), for norms of the rows of input and of :func:`.references.magnitudes`.

    4: what is rounded once for each block of a product with integers, its scales and its terms.
    """
    return np.asarray(LAMBDA * np.sqrt(k + 4) * UNIT * np.outer(x_norms, w_norms))


def swiglu(gate: Doubles, up: Doubles, gate_error: Doubles, up_error: Doubles) -> Doubles:
    """What errors of both products become.

    The slope of gate * sigmoid(gate) is at most 1.1, and its computation costs 8 roundings: exp to 4 units,
    sum, quotient, two products.
    """
    activated = np.abs(gate / (1.0 + np.exp(-gate)))
    error = 1.1 * gate_error + 8 * UNIT * activated
    return np.asarray(error * (np.abs(up) + up_error) + (activated + error) * up_error)


def rms_norm(result: Doubles, k: int) -> Doubles:
    """Relative: half the error of a sum of squares, which are of one sign, and 4 roundings."""
    return np.asarray((LAMBDA * np.sqrt(k) / 2 + 4) * UNIT * np.abs(result))


def attention(q: Doubles, key: float, value: float, dim: int, context: int) -> Doubles:
    """(rows, heads), for norms of queries (rows, heads), the greatest norm of a key and the greatest value.

    Scores are at most s = |q| |k| / sqrt(dim) and wrong by lambda * sqrt(dim) * u * s and a few roundings
    of s; exp makes that a relative error of a weight, which counts twice since weights are divided by their
    sum. The sums over positions, of weights and of weighted values, are two more.
    """
    largest = q * key / np.sqrt(dim)
    weight = (LAMBDA * np.sqrt(dim) + 4) * UNIT * largest + 4 * UNIT
    return np.asarray((2 * weight + 2 * LAMBDA * UNIT * np.sqrt(context)) * value)
