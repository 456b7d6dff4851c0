"""Attention over a cache of every type, on every instruction set."""

from __future__ import annotations

import numpy as np
import pytest

from specee import _cpu
from specee.bench.kernels import references, tolerances
from specee.bench.kernels.models import KV_DTYPES

ISAS = _cpu.supported_isas()


def random_case(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """q, keys and values of any sizes: queries up to the whole context, and up to 64 of them.

    Up to seven heads share keys and values, which are then cut into parts. A few rows of a long context are
    shared out by positions where key/value heads cannot be shared out evenly.
    """
    rng = np.random.default_rng(seed)
    kv_heads, group = int(rng.integers(1, 4)), int(rng.integers(1, 8))
    dim, context = 2 * int(rng.integers(1, 50)), int(rng.choice([1, 5, 16, 17, 63, 129, 192, 193, 200, 700]))
    rows = int(rng.integers(1, min(64 if context < 512 else 8, context) + 1))
    q = rng.standard_normal((rows, kv_heads * group, dim), dtype=np.float32)
    keys, values = (rng.standard_normal((context, kv_heads, dim), dtype=np.float32) for _ in range(2))
    return q, keys, values


def run(
    isa: str,
    dtype: str,
    q: np.ndarray,
    keys: np.ndarray,
    values: np.ndarray,
    *,
    threads: int = 1,
    copies: int = 1,
) -> np.ndarray:
    """Into poisoned memory; with copies, from the last of them."""
    context, kv_heads, dim = keys.shape
    op = _cpu.ops.Attention(q.shape[1], kv_heads, dim, context, dtype, isa, threads, copies)
    op.set(keys, values)
    out = np.full_like(q, np.nan)
    for _ in range(copies):
        out.fill(np.nan)
        op.run(q, out)
    return out


@pytest.mark.parametrize("dtype", KV_DTYPES)
@pytest.mark.parametrize("isa", ISAS)
def test_against_the_reference(isa: str, dtype: str) -> None:
    for seed in range(16):
        q, keys, values = random_case(seed)
        out = run(isa, dtype, q, keys, values, threads=1 + seed % 3)
        stored = [references.stored_kv(array, dtype) for array in (keys, values)]
        expected = references.attention(q, *stored)
        tolerance = tolerances.attention(
            np.linalg.norm(q, axis=2),
            float(np.linalg.norm(stored[0], axis=2).max()),
            float(np.abs(stored[1]).max()),
            q.shape[2],
            len(keys),
        )
        worst = np.abs(out - expected) - tolerance[:, :, None]
        assert worst.max() <= 0, f"seed {seed}: {q.shape} over {keys.shape}"


@pytest.mark.parametrize("dtype", KV_DTYPES)
@pytest.mark.parametrize("isa", ISAS)
def test_a_row_does_not_depend_on_its_company(isa: str, dtype: str) -> None:
    """To the bit: a position by itself, over what it sees, on other threads and from another copy."""
    for seed in range(20, 26):
        q, keys, values = random_case(seed)
        together = run(isa, dtype, q, keys, values, threads=2, copies=3)
        for row in range(len(q)):
            end = len(keys) - len(q) + row + 1
            alone = run(isa, dtype, q[row : row + 1], keys[:end], values[:end])
            np.testing.assert_array_equal(alone[0], together[row], err_msg=f"seed {seed}, row {row}")


@pytest.mark.parametrize("dtype", KV_DTYPES)
def test_same_bits_where_multiply_adds_are_fused(dtype: str) -> None:
    fused = [isa for isa in ISAS if isa != "portable"]
    if len(fused) < 2:
        pytest.skip(f"nothing to compare: this machine has {fused}")
    for seed in range(40, 56):
        case = random_case(seed)
        first, *others = (run(isa, dtype, *case) for isa in fused)
        for isa, out in zip(fused[1:], others, strict=True):
            np.testing.assert_array_equal(out, first, err_msg=f"seed {seed}, {isa}")
