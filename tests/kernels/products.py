"""Random products with one weight matrix, for every way the engine may compute them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from specee import _cpu
from specee.bench.kernels import references, tolerances
from specee.bench.kernels.blocks import Stored, random_rows

POISON = np.float32(np.nan)


@dataclass(frozen=True)
class Product:
    """A matrix as it is stored, ``rows`` of input, and the exact result with how far it may be off."""

    stored: str
    matrix: Stored
    x: np.ndarray
    swiglu: bool
    expected: np.ndarray
    tolerance: np.ndarray

    def run(self, isa: str, *, threads: int = 1, copies: int = 1, calls: int = 1) -> np.ndarray:
        """The result of the last of several calls, into poisoned memory; weights are set in uneven slabs."""
        outputs = len(self.matrix) // (2 if self.swiglu else 1)
        op = _cpu.ops.Linear(outputs, self.x.shape[1], self.stored, isa, threads, copies, self.swiglu)
        for begin in range(0, len(self.matrix), 11):
            op.set_rows(begin, np.ascontiguousarray(self.matrix[begin : begin + 11]), self.stored)
        y = np.full((len(self.x), outputs), POISON)
        for _ in range(calls):
            y.fill(POISON)
            op.run(self.x, y)
        return y


def random_product(rng: np.random.Generator, stored: str, *, swiglu: bool = False) -> Product:
    """Any sizes that the format can hold, odd ones as well."""
    unit = 256 if stored.endswith("_K") else 32
    k = (
        unit * int(rng.integers(1, 5))
        if stored in references.QUANTISED_FORMATS
        else int(rng.integers(1, 200))
    )
    outputs, rows = (
        int(rng.integers(1, 90)),
        int(rng.choice([1, 2, 3, 4, 5, 6, 7, 8, 13, 16, 17, 33, 63, 64])),
    )
    matrix = random_rows(rng, outputs * (2 if swiglu else 1), k, stored, k**-0.5)
    x = rng.standard_normal((rows, k), dtype=np.float32) * np.float32(10.0 ** rng.uniform(-3, 3))
    if swiglu:
        x /= np.abs(x).max()
    return product(matrix, x, stored, swiglu=swiglu)


def product(matrix: Stored, x: np.ndarray, stored: str, *, swiglu: bool = False) -> Product:
    """The exact result: with ``swiglu``, the first half of the matrix is gate and the second up."""
    floats = references.weights(matrix, stored, x.shape[1])
    y = references.linear(x, floats, stored)
    used = references.product_input(x, stored)
    sizes = tolerances.norms(references.magnitudes(matrix, stored, floats))
    error = tolerances.linear(tolerances.norms(used), sizes, x.shape[1])
    if swiglu:
        gate, up = np.split(y, 2, axis=1)
        error = tolerances.swiglu(gate, up, *np.split(error, 2, axis=1))
        y = references.swiglu(gate, up)
    return Product(stored, matrix, x, swiglu, y, error)
