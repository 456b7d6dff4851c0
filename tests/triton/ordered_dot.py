"""Products of the interpreter with a fixed order of sums.

Triton's interpreter hands ``tl.dot`` to a BLAS, whose sums run in another order for another row of a tile; a
tensor core treats all rows alike. Here a product is one chain over k for every element, so that tests of
batch invariance see the kernel's own order and no BLAS's.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def ordered_product(a: np.ndarray, b: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """(m, k) times (k, n): terms added in order of k, one by one."""
    terms = a.astype(dtype)[:, :, None] * b.astype(dtype)[None, :, :]
    return np.asarray(np.add.reduce(terms, axis=1))


def install() -> None:
    """Let the interpreter use it; to be called where kernels are interpreted."""
    from triton.runtime import interpreter

    handle = interpreter.TensorHandle

    def create_dot(self: Any, a: Any, b: Any, d: Any, *_: Any) -> Any:
        return handle(ordered_product(a.data, b.data, d.data.dtype) + d.data, d.dtype.scalar)

    interpreter.InterpreterBuilder.create_dot = create_dot
