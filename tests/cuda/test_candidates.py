"""Candidates have the very bits of the whole head; tokens' shares of the softmax are those of float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from specee.cuda import packing
from specee.cuda.candidates import candidate_logits
from specee.cuda.linear import QuantisedRows
from specee.cuda.products import multiply, prepare_rows
from specee.cuda.shares import token_shares
from specee.errors import ConfigurationError
from tests.cuda.devices import Device
from tests.cuda.numbers import UNIT, to_bf16


def head_and_rows(
    device: Device, rng: np.random.Generator, kind: str, shape: tuple[int, int, int]
) -> tuple[Any, Any]:
    """A random head (vocab, hidden), and random rows as its products take them."""
    rows, vocab, hidden = shape
    x = device.put(rng.standard_normal((rows, hidden)).astype(np.float32))
    put = device.put
    head: Any
    out: Any
    if kind == "bf16":
        head = put(to_bf16(rng.standard_normal((vocab, hidden))))
        out = put(np.zeros((rows, hidden), np.uint16))
    else:
        q = rng.integers(-128, 128, (vocab, hidden)).astype(np.int8)
        made = packing.pack_int8(q, rng.uniform(0.01, 0.1, (vocab, hidden // 32)).astype(np.float16))
        head = packing.PackedWeights("int8", vocab, hidden, put(made.data), put(made.scales))
        blocks = np.zeros((rows, hidden // 32), np.float32)
        out = QuantisedRows(put(np.zeros((rows, hidden), np.int8)), put(blocks), put(blocks.copy()))
    prepare_rows(device.launcher, x, out)
    return head, out


@pytest.mark.parametrize("kind", ["bf16", "int8"])
@pytest.mark.parametrize("count", [1, 4, 9, 16])
def test_bits_are_those_of_the_whole_head(
    device: Device, rng: np.random.Generator, kind: str, count: int
) -> None:
    rows, vocab, hidden = 3, 53, 352
    head, x = head_and_rows(device, rng, kind, (rows, vocab, hidden))
    tokens = np.stack([rng.permutation(vocab)[:count] for _ in range(rows)]).astype(np.int32)
    tokens[0, 0] = vocab - 1 if vocab - 1 not in tokens[0] else tokens[0, 0]
    whole = device.put(np.full((rows, vocab), np.nan, np.float32))
    multiply(device.launcher, x, head, whole)
    few = device.put(np.full((rows, count), np.nan, np.float32))
    candidate_logits(device.launcher, x, head, device.put(tokens), few)
    wanted = np.take_along_axis(device.get(whole), tokens.astype(np.int64), axis=1)
    assert np.array_equal(device.get(few).view(np.uint32), wanted.view(np.uint32))
    assert np.abs(wanted).min() > 0


@pytest.mark.parametrize("vocab", [5, 1000])
def test_shares_against_float64(device: Device, rng: np.random.Generator, vocab: int) -> None:
    rows = 4
    logits = (4 * rng.standard_normal((rows, vocab))).astype(np.float32)
    logits[1, : vocab // 2] = -np.inf  # tokens that a draft head does not have
    tokens = np.array([logits[0].argmax(), vocab - 1, 0, vocab], np.int32)
    shares = device.put(np.full(rows, -1, np.float32))
    token_shares(device.launcher, device.put(logits), device.put(tokens), shares)
    found = device.get(shares)
    exact = np.exp(logits.astype(np.float64))
    exact /= exact.sum(-1, keepdims=True)
    # An exponent is rounded, up to some 40 of them, its exponential is within 2 ulp, and so is the result.
    np.testing.assert_allclose(found[:3], exact[range(3), tokens[:3]], rtol=50 * UNIT)
    assert np.isnan(found[3])
    alone = device.put(np.full(1, -1, np.float32))
    token_shares(device.launcher, device.put(logits[2:3]), device.put(tokens[2:3]), alone)
    assert device.get(alone)[0] == found[2]


def test_what_does_not_fit_is_refused(device: Device, rng: np.random.Generator) -> None:
    head, x = head_and_rows(device, rng, "bf16", (1, 20, 64))
    packed, rows = head_and_rows(device, rng, "int8", (1, 20, 64))
    put = device.put
    many = put(np.zeros((1, 17), np.int32))
    with pytest.raises(ConfigurationError, match="17 candidates"):
        candidate_logits(device.launcher, x, head, many, put(np.zeros((1, 17), np.float32)))
    one, logits = put(np.zeros((1, 1), np.int32)), put(np.zeros((1, 1), np.float32))
    with pytest.raises(ConfigurationError, match="QuantisedRows"):
        candidate_logits(device.launcher, x, packed, one, logits)
    with pytest.raises(ConfigurationError, match="x is"):
        candidate_logits(device.launcher, put(np.zeros((1, 32), np.uint16)), head, one, logits)
    with pytest.raises(ConfigurationError, match="quantised rows"):
        multiply(device.launcher, x, packed, logits)
    candidate_logits(device.launcher, rows, packed, one, logits)
