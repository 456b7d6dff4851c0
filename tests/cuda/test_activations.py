"""Norms and SwiGLU of rows that enter products, against the formulas in float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from specee.cuda.linear import QuantisedRows, quantise_rows
from specee.cuda.products import norm_rows, swiglu_rows
from specee.errors import ConfigurationError
from tests.cuda.devices import Device
from tests.cuda.numbers import UNIT, from_bf16

EPS = 1e-5
SHAPES = [(1, 32), (3, 96), (2, 544)]
Call = Callable[[object], None]


def poisoned(device: Device, kind: str, rows: int, width: int) -> object:
    if kind == "bf16":
        return device.put(np.full((rows, width), 0x7FC1, np.uint16))
    blocks = np.full((rows, width // 32), np.nan, np.float32)
    return QuantisedRows(
        device.put(np.full((rows, width), -128, np.int8)), device.put(blocks), device.put(blocks)
    )


def made(device: Device, kind: str, rows: int, width: int, call: Call) -> tuple[np.ndarray, ...]:
    """What ``call`` writes: bits of bf16, or integers, scales and sums."""
    out = poisoned(device, kind, rows, width)
    call(out)
    parts = (out,) if kind == "bf16" else (out.q, out.scales, out.sums)  # type: ignore[attr-defined]
    return tuple(device.get(part) for part in parts)


def assert_rounded(kind: str, parts: tuple[np.ndarray, ...], exact: np.ndarray, slack: float) -> None:
    """That numbers within ``slack``, relative, of ``exact`` were rounded as products want them."""
    size = np.abs(exact)
    if kind == "bf16":
        assert np.all(np.abs(from_bf16(parts[0]) - exact) <= size * (2.0**-8 + slack) + 2.0**-130)
        return
    q, scales, sums = parts
    blocks = exact.reshape(*scales.shape, 32)
    np.testing.assert_allclose(scales, np.abs(blocks).max(-1) / 127, rtol=slack + 4 * UNIT)
    wide = np.repeat(scales.astype(np.float64), 32, axis=1)
    assert np.all(np.abs(q * wide - exact) <= wide * (0.5 + 127 * (slack + 4 * UNIT)))
    np.testing.assert_allclose(
        sums, scales * q.reshape(*scales.shape, 32).sum(-1, dtype=np.int64), rtol=2 * UNIT
    )


def norm(device: Device, kind: str, x: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, ...]:
    put = device.put
    return made(
        device, kind, *x.shape, lambda out: norm_rows(device.launcher, put(x), put(weight), out, eps=EPS)
    )


@pytest.mark.parametrize("kind", ["bf16", "int8"])
def test_some_rows_are_normed_as_all_are(device: Device, rng: np.random.Generator, kind: str) -> None:
    """To the bit, in another order, one of them twice."""
    x, weight = (rng.standard_normal(shape).astype(np.float32) for shape in ((5, 96), (96,)))
    put, which = device.put, np.array([3, 0, 3], np.int32)
    whole = norm(device, kind, x, weight)
    on = put(which)
    some = made(
        *(device, kind, 3, 96),
        lambda out: norm_rows(device.launcher, put(x), put(weight), out, eps=EPS, which=on),
    )
    for part, found in zip(whole, some, strict=True):
        assert np.array_equal(found, part[which])


@pytest.mark.parametrize("normed", [True, False])
def test_columns_of_longer_rows(device: Device, rng: np.random.Generator, normed: bool) -> None:
    """To the bit what rows of their own have, and nothing beside them is written."""
    x, weight = (rng.standard_normal(shape).astype(np.float32) for shape in ((5, 96), (96,)))
    put = device.put

    def write(out: QuantisedRows) -> None:
        if normed:
            norm_rows(device.launcher, put(x), put(weight), out, eps=EPS)
        else:
            quantise_rows(device.launcher, put(x), out)

    alone = made(device, "int8", 5, 96, write)
    among = made(device, "int8", 5, 224, lambda out: write(out.columns(64, 160)))
    for part, found, blocks in zip(alone, among, (1, 32, 32), strict=True):
        columns = slice(64 // blocks, 160 // blocks)
        assert np.array_equal(found[:, columns], part)
        rest = np.delete(found, columns, axis=1)
        assert np.all((rest == -128) | np.isnan(rest))


def test_columns_that_are_no_columns(device: Device) -> None:
    put = device.put
    x = put(np.zeros((3, 64), np.float32))
    whole = poisoned(device, "int8", 3, 96)
    assert isinstance(whole, QuantisedRows)
    wrong = replace(whole.columns(0, 64), sums=put(np.zeros((3, 2), np.float32)))
    with pytest.raises(ConfigurationError, match=r"out.sums's rows are 2 blocks apart, and out.q's 96"):
        quantise_rows(device.launcher, x, wrong)
    with pytest.raises(ConfigurationError, match=r"out.q is int8 of shape \(1, 32\)"):
        quantise_rows(device.launcher, x, whole.columns(0, 32))
    with pytest.raises(ConfigurationError, match=r"out.q has 3 rows: allowed are 2"):
        quantise_rows(device.launcher, put(np.zeros((2, 64), np.float32)), whole.columns(0, 64))
    with pytest.raises(ConfigurationError, match=r"out's rows are 96 numbers apart: allowed is 64"):
        swiglu_rows(device.launcher, x, None, whole.columns(0, 64))


@pytest.mark.parametrize("kind", ["bf16", "int8"])
@pytest.mark.parametrize("shape", SHAPES)
def test_norm_against_float64(
    device: Device, rng: np.random.Generator, kind: str, shape: tuple[int, int]
) -> None:
    x = (3 * rng.standard_normal(shape)).astype(np.float32)
    weight = rng.uniform(0.5, 1.5, shape[1]).astype(np.float32)
    wide = x.astype(np.float64)
    exact = wide / np.sqrt((wide**2).mean(-1, keepdims=True) + EPS) * weight
    assert_rounded(kind, norm(device, kind, x, weight), exact, (shape[1] + 8) * UNIT)


def swiglu(
    device: Device, kind: str, gate: np.ndarray, up: np.ndarray | None, biases: list[np.ndarray | None]
) -> tuple[np.ndarray, ...]:
    def put(array: np.ndarray | None) -> object:
        return None if array is None else device.put(array)

    return made(
        device,
        kind,
        *gate.shape,
        lambda out: swiglu_rows(
            device.launcher, put(gate), put(up), out, gate_bias=put(biases[0]), up_bias=put(biases[1])
        ),
    )


@pytest.mark.parametrize("kind", ["bf16", "int8"])
@pytest.mark.parametrize("parts", ["gate", "gate and up", "biases"])
def test_swiglu_against_float64(device: Device, rng: np.random.Generator, kind: str, parts: str) -> None:
    shape = (3, 96)
    gate, up = ((2 * rng.standard_normal(shape)).astype(np.float32) for _ in range(2))
    biases = (
        [rng.standard_normal(96).astype(np.float32) for _ in range(2)] if parts == "biases" else [None, None]
    )
    parts_made = swiglu(device, kind, gate, None if parts == "gate" else up, list(biases))
    g, u = gate.astype(np.float64), np.ones(shape) if parts == "gate" else up.astype(np.float64)
    if parts == "biases":  # sums in fp32, whose own error is not this kernel's
        g, u = ((a + b).astype(np.float64) for a, b in ((gate, biases[0]), (up, biases[1])))
    assert_rounded(kind, parts_made, g / (1 + np.exp(-g)) * u, 16 * UNIT)


@pytest.mark.parametrize("kind", ["bf16", "int8"])
def test_rows_do_not_depend_on_their_company(device: Device, rng: np.random.Generator, kind: str) -> None:
    x = rng.standard_normal((5, 64)).astype(np.float32)
    weight = rng.uniform(0.5, 1.5, 64).astype(np.float32)
    for together, alone in (
        (norm(device, kind, x, weight), norm(device, kind, x[3:4], weight)),
        (swiglu(device, kind, x, x, [weight, None]), swiglu(device, kind, x[3:4], x[3:4], [weight, None])),
    ):
        for a, b in zip(together, alone, strict=True):
            assert np.array_equal(a[3:4], b)


def test_a_nan_stays_one(device: Device) -> None:
    x = np.ones((2, 64), np.float32)
    x[1, 40] = np.nan
    ones = np.ones(64, np.float32)
    q, scales, _ = norm(device, "int8", x, ones)
    assert np.isfinite(scales[0]).all()
    assert np.isnan(scales[1]).all()
    assert not q[1].any()
    (narrow,) = norm(device, "bf16", x, ones)
    assert np.isfinite(from_bf16(narrow[0])).all()
    assert np.isnan(from_bf16(narrow[1])).all()


def test_what_does_not_fit_is_refused(device: Device) -> None:
    put = device.put
    x, weight, out = (
        put(np.zeros((2, 64), np.float32)),
        put(np.zeros(64, np.float32)),
        put(np.zeros((2, 64), np.uint16)),
    )
    with pytest.raises(ConfigurationError, match="weight is float32 of shape"):
        norm_rows(device.launcher, x, put(np.zeros(32, np.float32)), out, eps=EPS)
    with pytest.raises(ConfigurationError, match="out is float32"):
        norm_rows(device.launcher, x, weight, x, eps=EPS)
    odd = put(np.zeros((2, 40), np.float32))
    with pytest.raises(ConfigurationError, match="rows of 40 numbers"):
        swiglu_rows(device.launcher, odd, odd, poisoned(device, "int8", 2, 64))
    with pytest.raises(ConfigurationError, match="up is float32"):
        swiglu_rows(device.launcher, x, put(np.zeros((1, 64), np.float32)), out)
