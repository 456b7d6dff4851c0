"""Two mends of Triton's interpreter.

It hands ``tl.dot`` to a BLAS, whose sums run in another order for another row of a tile; a tensor core treats
all rows alike. Here a product is one chain over k for every element, so that tests of batch invariance see
the kernel's own order and no BLAS's.

A bound of a loop is an array of one element to it, which some releases (3.6) convert in a way that numpy 2.4
refuses.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def ordered_product(a: np.ndarray, b: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """(m, k) times (k, n): terms added in order of k, one by one."""
    terms = a.astype(dtype)[:, :, None] * b.astype(dtype)[None, :, :]
    return np.asarray(np.add.reduce(terms, axis=1))


def mend() -> None:
    """To be called where kernels are interpreted, before the first one is."""
    from triton.runtime import interpreter

    handle, patch_tensor = interpreter.TensorHandle, interpreter._patch_lang_tensor

    def create_dot(self: Any, a: Any, b: Any, d: Any, *_: Any) -> Any:
        return handle(ordered_product(a.data, b.data, d.data.dtype) + d.data, d.dtype.scalar)

    def patch_lang_tensor(tensor: Any, scope: Any) -> None:
        patch_tensor(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    interpreter.InterpreterBuilder.create_dot = create_dot
    interpreter._patch_lang_tensor = patch_lang_tensor
