"""Products of rows with a matrix, in every format and on every instruction set."""

from __future__ import annotations

import numpy as np
import pytest

from specee import _cpu
from specee.bench.kernels import references
from specee.bench.kernels.blocks import random_rows
from specee.errors import RowError
from tests.engines import PAIRWISE
from tests.kernels.products import product, random_product

ISAS = _cpu.supported_isas()
FUSED = [isa for isa in ISAS if isa != "portable"]
CASES = 12


@pytest.mark.parametrize("swiglu", [False, True], ids=["plain", "swiglu"])
@pytest.mark.parametrize("stored", references.FORMATS)
@pytest.mark.parametrize("isa", ISAS)
def test_against_the_reference(isa: str, stored: str, swiglu: bool) -> None:
    for seed in range(CASES):
        case = random_product(np.random.default_rng(seed), stored, swiglu=swiglu)
        y = case.run(isa, threads=1 + seed % 3)
        worst = np.abs(y - case.expected) - case.tolerance
        assert worst.max() <= 0, f"seed {seed}: {case.x.shape} rows and k, {len(case.matrix)} weight rows"


@pytest.mark.parametrize("stored", references.FORMATS)
def test_a_wrong_weight_is_noticed(stored: str) -> None:
    """The negative control: two rows exchanged are far beyond the tolerance."""
    rng = np.random.default_rng(3)
    matrix = random_rows(rng, 32, 256, stored, 256**-0.5)
    case = product(matrix, rng.standard_normal((4, 256), dtype=np.float32), stored)
    case.matrix[[4, 5]] = case.matrix[[5, 4]]
    off = np.abs(case.run(ISAS[-1]) - case.expected) > case.tolerance
    assert off[:, [4, 5]].all()
    assert not np.delete(off, [4, 5], axis=1).any()


@pytest.mark.parametrize("swiglu", [False, True], ids=["plain", "swiglu"])
@pytest.mark.parametrize("stored", references.FORMATS)
@pytest.mark.parametrize("isa", ISAS)
def test_a_row_does_not_depend_on_its_company(isa: str, stored: str, swiglu: bool) -> None:
    """To the bit: whatever rows are beside it, on any number of threads, from any copy of the weights."""
    for seed in range(4):
        case = random_product(np.random.default_rng(100 + seed), stored, swiglu=swiglu)
        together = case.run(isa, threads=3, copies=3, calls=2)
        for row in range(len(case.x)):
            alone = product(case.matrix, case.x[row : row + 1], stored, swiglu=swiglu).run(isa)
            np.testing.assert_array_equal(alone[0], together[row], err_msg=f"seed {100 + seed}, row {row}")


@pytest.mark.skipif(len(FUSED) < 2, reason=f"nothing to compare: this machine has {FUSED}")
@pytest.mark.parametrize("stored", references.FORMATS)
def test_same_bits_where_multiply_adds_are_fused(stored: str) -> None:
    for seed in range(CASES):
        case = random_product(np.random.default_rng(200 + seed), stored, swiglu=seed % 2 == 1)
        isas = [isa for isa in FUSED if stored != "BF16" or isa not in PAIRWISE]
        first, *others = (case.run(isa) for isa in isas)
        for isa, y in zip(isas[1:], others, strict=True):
            np.testing.assert_array_equal(y, first, err_msg=f"seed {200 + seed}, {isa}")


@pytest.mark.parametrize("stored", ["Q4_0", "Q4_1", "Q8_0"])
@pytest.mark.parametrize("isa", ISAS)
def test_a_last_block_that_is_not_full(isa: str, stored: str) -> None:
    """Quantising at load pads rows with zeros, whatever the input holds after the last of them."""
    for seed, k in enumerate((1, 31, 33, 100)):
        rng = np.random.default_rng(300 + seed)
        matrix = random_rows(rng, 20, k, stored, 1.0)
        case = product(matrix, rng.standard_normal((3, k), dtype=np.float32), stored)
        worst = np.abs(case.run(isa) - case.expected) - case.tolerance
        assert worst.max() <= 0, f"seed {300 + seed}, k {k}"


@pytest.mark.parametrize("stored", references.FORMATS)
@pytest.mark.parametrize("isa", ISAS)
def test_zeros_and_tiny_inputs(isa: str, stored: str) -> None:
    """A block of inputs below the smallest magnitude counts as zero; no scale becomes infinite."""
    rng = np.random.default_rng(9)
    x = np.zeros((2, 512), dtype=np.float32)
    x[1, 40:300] = np.float32(1e-31) * rng.standard_normal(260, dtype=np.float32)
    x[1, 300:] = rng.standard_normal(212, dtype=np.float32)
    case = product(random_rows(rng, 33, 512, stored, 0.05), x, stored)
    y = case.run(isa)
    np.testing.assert_array_equal(y[0], np.zeros(33))
    assert (np.abs(y - case.expected) <= case.tolerance).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("stored", references.FORMATS)
@pytest.mark.parametrize("isa", ISAS)
def test_what_is_not_finite_stays_so(isa: str, stored: str, bad: float) -> None:
    """An overflow must reach the check at the end of the model; other rows are not touched."""
    rng = np.random.default_rng(10)
    x = rng.standard_normal((3, 256), dtype=np.float32)
    case = product(random_rows(rng, 17, 256, stored, 0.05), x, stored)
    x[1, 77] = bad
    y = case.run(isa)
    assert not np.isfinite(y[1]).any()
    assert (np.abs(y - case.expected) <= case.tolerance)[[0, 2]].all()


def test_wrong_arguments() -> None:
    op = _cpu.ops.Linear(8, 32, "F32")
    x, y = np.zeros((2, 32), np.float32), np.zeros((2, 8), np.float32)
    for wrong_x, wrong_y in (
        (x[:, :31], y),
        (x, y[:1]),
        (np.zeros((65, 32), np.float32), np.zeros((65, 8), np.float32)),
    ):
        with pytest.raises(RowError):
            op.run(np.ascontiguousarray(wrong_x), wrong_y)
    with pytest.raises(RowError, match="9"):
        op.set_rows(0, np.zeros((9, 32), np.float32), "F32")
