"""Embedding, biases, copies and paths: exact, and nothing beside them is written."""

from __future__ import annotations

import numpy as np
import pytest

from specee.cuda import packing
from specee.cuda.rows import add_bias, copy_rows, embed_rows, fill_paths
from specee.errors import ConfigurationError
from tests.cuda.devices import Device
from tests.cuda.numbers import from_bf16, to_bf16


def placed(device: Device, packed: packing.PackedWeights) -> packing.PackedWeights:
    data, scales = device.put(packed.data), device.put(packed.scales)
    return packing.PackedWeights(packed.stored, packed.outputs, packed.k, data, scales)


@pytest.mark.parametrize("kind", ["bf16", "int8"])
@pytest.mark.parametrize(("vocab", "hidden"), [(37, 64), (16, 160)])
def test_embedding(device: Device, rng: np.random.Generator, kind: str, vocab: int, hidden: int) -> None:
    tokens = np.array([0, vocab - 1, *rng.integers(0, vocab, 3)], np.int32)
    if kind == "bf16":
        bits = to_bf16(rng.standard_normal((vocab, hidden)))
        table, worth = device.put(bits), from_bf16(bits)
    else:
        q = rng.integers(-128, 128, (vocab, hidden)).astype(np.int8)
        scales = rng.uniform(0.01, 0.1, (vocab, hidden // 32)).astype(np.float16)
        table = placed(device, packing.pack_int8(q, scales))
        worth = np.repeat(scales.astype(np.float32), 32, axis=1) * q
    x = device.put(np.full((5, hidden), np.nan, np.float32))
    embed_rows(device.launcher, device.put(tokens), table, x)
    assert np.array_equal(device.get(x), worth[tokens])


def test_bias_and_copy(device: Device, rng: np.random.Generator) -> None:
    x = rng.standard_normal((3, 200)).astype(np.float32)
    bias = rng.standard_normal(200).astype(np.float32)
    on, out = device.put(x), device.put(np.full((3, 200), np.nan, np.float32))
    add_bias(device.launcher, on, device.put(bias))
    copy_rows(device.launcher, on, out)
    assert np.array_equal(device.get(on), x + bias)
    assert np.array_equal(device.get(out), x + bias)


def test_paths(device: Device, rng: np.random.Generator) -> None:
    """Rows of the text, and rows of a tree on top of it, in a table longer than any of them."""
    table, depth = 600, 5
    lengths = np.array([300, 10, 0, 512], np.int32)
    ends = lengths + np.array([0, 5, 3, 1], np.int32)
    tails = rng.integers(1000, 2000, (4, depth)).astype(np.int32)
    slots = device.put(np.full((4, table), -7, np.int32))
    fill_paths(device.launcher, slots, *(device.put(a) for a in (lengths, ends, tails)))
    for row, found in enumerate(device.get(slots)):
        length, end = lengths[row], ends[row]
        wanted = [*range(length), *tails[row, : end - length], *([-7] * (table - end))]
        assert found.tolist() == wanted


def test_what_does_not_fit_is_refused(device: Device) -> None:
    put = device.put
    tokens, x = put(np.zeros(2, np.int32)), put(np.zeros((2, 64), np.float32))
    with pytest.raises(ConfigurationError, match="table is"):
        embed_rows(device.launcher, tokens, put(np.zeros((4, 32), np.uint16)), x)
    four = packing.pack_int4(
        *(np.zeros((4, n), t) for n, t in ((64, np.uint8), (2, np.float16), (2, np.float16)))
    )
    with pytest.raises(ConfigurationError, match="an embedding of int4 rows"):
        embed_rows(device.launcher, tokens, placed(device, four), x)
    with pytest.raises(ConfigurationError, match="bias is"):
        add_bias(device.launcher, x, put(np.zeros(32, np.float32)))
    with pytest.raises(ConfigurationError, match="ends is"):
        fill_paths(
            device.launcher, put(np.zeros((2, 8), np.int32)), tokens, put(np.zeros(3, np.int32)), tokens
        )
