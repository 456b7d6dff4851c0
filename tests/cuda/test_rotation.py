"""Rotary embedding and cache against the formula in float64; slots beside are left as they are."""

from __future__ import annotations

import numpy as np
import pytest

from specee.cuda.rotation import Cache, Projected, Turns, turn_angles, turn_heads
from specee.errors import ConfigurationError
from tests.cuda.devices import Device
from tests.cuda.numbers import UNIT, from_bf16

EPS = 1e-6
POISON = {"bf16": np.uint16(0x7FC1), "fp16": np.float16(np.nan)}
HALF_ULP = {"bf16": 2.0**-8, "fp16": 2.0**-11}


def angles(device: Device, positions: list[int], speeds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    put, shape = device.put, (len(positions), len(speeds))
    out = Turns(*(put(np.full(shape, np.nan, np.float32)) for _ in range(2)))
    turn_angles(device.launcher, put(np.array(positions, np.int32)), put(speeds), out)
    return device.get(out.cosines), device.get(out.sines)


def speeds_of(dim: int) -> np.ndarray:
    return (10000.0 ** -(np.arange(dim // 2) / (dim // 2))).astype(np.float32)


@pytest.mark.parametrize("dim", [64, 256])
def test_angles_are_exact_at_any_position(device: Device, rng: np.random.Generator, dim: int) -> None:
    positions = [0, 1, 77, 4095, int(rng.integers(2**17)), 2**20 + 3]
    speeds = speeds_of(dim)
    cosines, sines = angles(device, positions, speeds)
    angle = (np.array(positions, np.float32)[:, None] * speeds).astype(np.float64)
    np.testing.assert_allclose(cosines, np.cos(angle), atol=UNIT + 1e-9, rtol=0)
    np.testing.assert_allclose(sines, np.sin(angle), atol=UNIT + 1e-9, rtol=0)
    again = angles(device, positions[3:4], speeds)
    assert np.array_equal(np.stack(again)[:, 0], np.stack([cosines, sines])[:, 3])


class Rows:
    """Random products of some rows, and what is to become of them."""

    def __init__(self, rng: np.random.Generator, kind: str, dim: int, *, extras: bool) -> None:
        self.kind, self.dim, self.heads, self.key_heads, self.rows = kind, dim, 4, 2, 3
        self.slots = rng.permutation(9)[: self.rows].astype(np.int32)
        self.positions = [5, 1, 130]
        self.q, self.k, self.v = (
            rng.standard_normal((self.rows, n, dim)).astype(np.float32) for n in (4, 2, 2)
        )
        self.biases = [rng.standard_normal(n * dim).astype(np.float32) if extras else None for n in (4, 2, 2)]
        self.norms = [rng.uniform(0.5, 1.5, dim).astype(np.float32) if extras else None for _ in range(2)]

    def run(self, device: Device, rows: slice = slice(None)) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Queries, keys and values of the whole cache."""
        put = device.put
        given = [None if array is None else put(array) for array in (*self.biases, *self.norms, None)]
        parts = [
            Projected(put(array[rows]), bias, norm)
            for array, bias, norm in zip((self.q, self.k, self.v), given[:3], given[3:], strict=True)
        ]
        cosines, sines = angles(device, self.positions[rows], speeds_of(self.dim))
        cache = Cache(*(put(np.full((9, self.key_heads, self.dim), POISON[self.kind])) for _ in range(2)))
        turns = Turns(put(cosines), put(sines))
        turn_heads(device.launcher, *parts, turns, put(self.slots[rows]), cache, eps=EPS)
        return device.get(parts[0].values), device.get(cache.keys), device.get(cache.values)

    def exact(self) -> list[np.ndarray]:
        """Queries, keys and values in float64."""
        found = []
        for x, bias, norm in zip((self.q, self.k, self.v), self.biases, (*self.norms, None), strict=True):
            wide = (
                x.astype(np.float64) if bias is None else (x + bias.reshape(x.shape[1:])).astype(np.float64)
            )
            if norm is not None:
                wide = wide / np.sqrt((wide**2).mean(-1, keepdims=True) + EPS) * norm
            found.append(wide)
        angle = np.array(self.positions, np.float64)[:, None, None] * speeds_of(self.dim)
        for i in range(2):
            a, b = np.split(found[i], 2, axis=-1)
            cos, sin = np.cos(angle), np.sin(angle)
            found[i] = np.concatenate([a * cos - b * sin, b * cos + a * sin], -1)
        return found


@pytest.mark.parametrize("kind", ["bf16", "fp16"])
@pytest.mark.parametrize("dim", [64, 128, 256])
@pytest.mark.parametrize("extras", [False, True])
def test_heads_against_float64(
    device: Device, rng: np.random.Generator, kind: str, dim: int, extras: bool
) -> None:
    rows = Rows(rng, kind, dim, extras=extras)
    queries, *stored = rows.run(device)
    exact = rows.exact()
    # The angle itself is rounded: up to 130 radians, in fp32.
    slack = 130 * UNIT + (dim + 8) * UNIT
    assert np.abs(queries - exact[0]).max() <= slack * 2 * np.abs(exact[0]).max()
    others = np.setdiff1d(np.arange(9), rows.slots)
    for cache, wanted in zip(stored, exact[1:], strict=True):
        wide = from_bf16(cache) if kind == "bf16" else cache.astype(np.float64)
        assert np.isnan(wide[others]).all()
        allowed = np.abs(wanted) * HALF_ULP[kind] + slack * 2 * np.abs(wanted).max() + 2.0**-25
        assert np.all(np.abs(wide[rows.slots] - wanted) <= allowed)


def test_rows_do_not_depend_on_their_company(device: Device, rng: np.random.Generator) -> None:
    rows = Rows(rng, "bf16", 64, extras=True)
    together, alone = rows.run(device), rows.run(device, slice(1, 2))
    assert np.array_equal(together[0][1:2], alone[0])
    slot = rows.slots[1]
    for a, b in zip(together[1:], alone[1:], strict=True):
        assert np.array_equal(a[slot], b[slot])


@pytest.mark.parametrize("kind", ["bf16", "fp16"])
def test_rows_without_a_slot_store_nothing(device: Device, rng: np.random.Generator, kind: str) -> None:
    rows = Rows(rng, kind, 64, extras=False)
    queries, *stored = rows.run(device)
    away = int(rows.slots[1])
    rows.slots[1] = -1
    again, *left = rows.run(device)
    assert np.array_equal(again, queries)
    for cache, before in zip(left, stored, strict=True):
        assert np.isnan(from_bf16(cache[away]) if kind == "bf16" else cache[away]).all()
        others = np.setdiff1d(np.arange(9), [away])
        assert np.array_equal(cache[others].view(np.uint16), before[others].view(np.uint16))


def test_what_does_not_fit_is_refused(device: Device) -> None:
    put = device.put
    with pytest.raises(ConfigurationError, match="head dimension 32"):
        turn_angles(
            device.launcher,
            put(np.zeros(2, np.int32)),
            put(np.zeros(16, np.float32)),
            Turns(put(np.zeros((2, 16), np.float32)), put(np.zeros((2, 16), np.float32))),
        )
    heads = put(np.zeros((1, 2, 64), np.float32))
    turns = Turns(*(put(np.zeros((1, 32), np.float32)) for _ in range(2)))
    slots = put(np.zeros(1, np.int32))
    cache = Cache(*(put(np.zeros((4, 2, 64), np.uint16)) for _ in range(2)))
    whole, whole_norm = Projected(heads), put(np.zeros(64, np.float32))
    normed, biased = (Projected(heads, *parts) for parts in ((None, whole_norm), (whole_norm, None)))
    with pytest.raises(ConfigurationError, match="values have a norm"):
        turn_heads(device.launcher, whole, whole, normed, turns, slots, cache, eps=EPS)
    with pytest.raises(ConfigurationError, match=r"keys\.bias"):
        turn_heads(device.launcher, whole, biased, whole, turns, slots, cache, eps=EPS)
