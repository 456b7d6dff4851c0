"""Row-linear kernels against exact products of the same rounded inputs."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest

from specee.cuda import linear, packing
from specee.errors import ConfigurationError
from tests.cuda.devices import Device
from tests.cuda.numbers import dot_bound, from_bf16, to_bf16

FORMATS = ("bf16", "int8", "int4")
Stored = Literal["bf16", "int8", "int4"]
SHAPES = [(1, 16, 32), (3, 40, 96), (8, 33, 288), (9, 16, 512), (2, 16, 1312), (20, 50, 64), (64, 17, 96)]


def quantised(device: Device, x: np.ndarray) -> linear.QuantisedRows:
    rows, k = x.shape
    out = linear.QuantisedRows(
        device.put(np.zeros((rows, k), np.int8)),
        device.put(np.full((rows, k // 32), np.nan, np.float32)),
        device.put(np.full((rows, k // 32), np.nan, np.float32)),
    )
    linear.quantise_rows(device.launcher, device.put(x), out)
    return out


class Matrix:
    """Random weights of one format: what they are worth, and as kernels take them."""

    def __init__(self, rng: np.random.Generator, stored: Stored, outputs: int, k: int) -> None:
        self.stored = stored
        if stored == "bf16":
            self.bits = to_bf16(rng.standard_normal((outputs, k)))
            self.worth = from_bf16(self.bits).astype(np.float64)
            return
        shape = (outputs, k // 32)
        scales = rng.uniform(0.01, 0.1, shape).astype(np.float16)
        wide = np.repeat(scales.astype(np.float64), 32, axis=1)
        if stored == "int8":
            q = rng.integers(-128, 128, (outputs, k)).astype(np.int8)
            self.packed = packing.pack_int8(q, scales)
            self.worth = wide * q
        else:
            nibbles = rng.integers(0, 16, (outputs, k)).astype(np.uint8)
            minima = rng.uniform(-1, 0.1, shape).astype(np.float16)
            self.packed = packing.pack_int4(nibbles, scales, minima)
            self.worth = wide * nibbles + np.repeat(minima.astype(np.float64), 32, axis=1)

    def times(self, device: Device, x: np.ndarray, out: np.ndarray, *, add: bool = False) -> np.ndarray:
        y = device.put(out)
        if self.stored == "bf16":
            rows = device.put(np.zeros(x.shape, np.uint16))
            linear.round_rows(device.launcher, device.put(x), rows)
            linear.linear_bf16(device.launcher, rows, device.put(self.bits), y, add=add)
        else:
            data, scales = device.put(self.packed.data), device.put(self.packed.scales)
            weights = packing.PackedWeights(
                self.packed.stored, self.packed.outputs, self.packed.k, data, scales
            )
            linear.linear_packed(device.launcher, quantised(device, x), weights, y, add=add)
        return device.get(y)

    def inputs(self, device: Device, x: np.ndarray) -> np.ndarray:
        """What ``x`` is worth once it has entered a product."""
        if self.stored == "bf16":
            return from_bf16(to_bf16(x)).astype(np.float64)
        rows = quantised(device, x)
        return device.get(rows.q) * np.repeat(device.get(rows.scales).astype(np.float64), 32, axis=1)

    def bound(self, x: np.ndarray) -> np.ndarray:
        if self.stored != "int4":
            return dot_bound(x, self.worth)
        # The minimum is added beside the product, so both magnitudes count.
        lowest = np.repeat(self.worth.reshape(len(self.worth), -1, 32).min(axis=2), 32, axis=1)
        return dot_bound(x, np.abs(self.worth) + 2 * np.abs(lowest))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("stored", FORMATS)
def test_against_exact_products(
    device: Device, rng: np.random.Generator, stored: Stored, shape: tuple[int, int, int]
) -> None:
    rows, outputs, k = shape
    matrix = Matrix(rng, stored, outputs, k)
    x = rng.standard_normal((rows, k)).astype(np.float32)
    y = matrix.times(device, x, np.full((rows, outputs), np.nan, np.float32))
    exact, inputs = matrix.inputs(device, x) @ matrix.worth.T, matrix.inputs(device, x)
    assert np.all(np.abs(y - exact) <= matrix.bound(inputs))


@pytest.mark.parametrize("stored", FORMATS)
def test_adding_to_what_is_there(device: Device, rng: np.random.Generator, stored: Stored) -> None:
    matrix = Matrix(rng, stored, 20, 64)
    x, before = (rng.standard_normal(shape).astype(np.float32) for shape in ((5, 64), (5, 20)))
    alone = matrix.times(device, x, np.full((5, 20), np.nan, np.float32))
    np.testing.assert_array_equal(matrix.times(device, x, before, add=True), before + alone)


@pytest.mark.parametrize("stored", FORMATS)
def test_a_row_does_not_depend_on_its_company(
    device: Device, rng: np.random.Generator, stored: Stored
) -> None:
    """To the bit, for every number of rows that a kernel is compiled for."""
    matrix = Matrix(rng, stored, 16, 288)
    x = rng.standard_normal((64, 288)).astype(np.float32)
    x[40] = np.nan  # and a bad row spoils its own result alone
    together = matrix.times(device, x, np.zeros((64, 16), np.float32))
    assert np.isnan(together[40]).all()
    assert not np.isnan(np.delete(together, 40, axis=0)).any()
    for first, rows in ((0, 1), (63, 1), (7, 8), (20, 13), (30, 25)):
        part = matrix.times(device, x[first : first + rows], np.zeros((rows, 16), np.float32))
        np.testing.assert_array_equal(part, together[first : first + rows])


@pytest.mark.parametrize("stored", FORMATS)
def test_a_wrong_weight_is_noticed(device: Device, rng: np.random.Generator, stored: Stored) -> None:
    """The negative control: two outputs exchanged are far beyond the tolerance."""
    matrix = Matrix(rng, stored, 16, 256)
    x = rng.standard_normal((4, 256)).astype(np.float32)
    y = matrix.times(device, x, np.zeros((4, 16), np.float32))
    inputs = matrix.inputs(device, x)
    matrix.worth[[3, 9]] = matrix.worth[[9, 3]]
    off = np.abs(y - inputs @ matrix.worth.T) > matrix.bound(inputs)
    assert off[:, [3, 9]].all()
    assert not np.delete(off, [3, 9], axis=1).any()


def test_quantised_rows_are_those_of_the_cpu(device: Device, rng: np.random.Generator) -> None:
    """docs/numerics.md to the bit: scale = max|x| / 127, q = round(x / scale), ties to even; sums of q."""
    x = rng.standard_normal((3, 128)).astype(np.float32)
    x[0, 32:64] = 0.0
    x[0, 64:96] = 1e-31  # counts as zero
    x[1, 5], x[2, 70] = np.inf, np.nan
    rows = quantised(device, x)
    q, scales, sums = device.get(rows.q), device.get(rows.scales), device.get(rows.sums)
    blocks = x.reshape(3, 4, 32)
    largest = np.abs(blocks).max(axis=2)
    expected = np.where(largest < 1e-30, np.float32(0), largest * (np.float32(1) / np.float32(127)))
    np.testing.assert_array_equal(scales, expected)
    sound = np.isfinite(expected) & (expected > 0)
    inverse = np.float32(1) / np.where(sound, expected, np.float32(1))
    with np.errstate(invalid="ignore"):
        whole = np.where(sound[:, :, None], np.rint(blocks * inverse[:, :, None]), 0)
    np.testing.assert_array_equal(q.reshape(3, 4, 32), whole)
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(sums, expected * whole.sum(axis=2).astype(np.float32))
    assert np.isnan(sums[1, 0])
    assert np.isnan(sums[2, 2])


def test_rounding_to_bf16(device: Device, rng: np.random.Generator) -> None:
    x = np.concatenate(
        [rng.standard_normal(700), [0.0, -0.0, 1e-40, np.inf, -np.inf, 1.00390625, 1.01171875]]
    )
    x = x.astype(np.float32)[None]
    out = device.put(np.zeros(x.shape, np.uint16))
    linear.round_rows(device.launcher, device.put(x), out)
    np.testing.assert_array_equal(device.get(out), to_bf16(x))
    nan = device.put(np.zeros((1, 1), np.uint16))
    linear.round_rows(device.launcher, device.put(np.array([[np.nan]], np.float32)), nan)
    assert np.isnan(from_bf16(device.get(nan))).all()


@pytest.mark.parametrize(("rows", "k"), [(65, 32), (0, 32), (1, 48)])
def test_impossible_shapes_are_refused(device: Device, rows: int, k: int) -> None:
    x, w = device.put(np.zeros((rows, k), np.uint16)), device.put(np.zeros((16, k), np.uint16))
    with pytest.raises(ConfigurationError, match="allowed are"):
        linear.linear_bf16(device.launcher, x, w, device.put(np.zeros((rows, 16), np.float32)))


def test_arrays_that_do_not_fit_are_refused(device: Device) -> None:
    x, w = device.put(np.zeros((1, 32), np.uint16)), device.put(np.zeros((16, 64), np.uint16))
    with pytest.raises(ConfigurationError, match=r"weights is .*\(16, 64\).*allowed is"):
        linear.linear_bf16(device.launcher, x, w, device.put(np.zeros((1, 16), np.float32)))
