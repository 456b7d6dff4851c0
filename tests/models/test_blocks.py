"""Block rows: values, sizes, scales; and the test helpers that take blocks apart."""

from __future__ import annotations

import gguf
import numpy as np
import pytest

from specee.models.blocks import QUANTISED, dequantise, quantise, row_bytes, scales, widen
from tests.quantised import BLOCK, BYTES, KINDS, SCALES, any_rows, parts, random_rows, to_floats


@pytest.mark.parametrize("kind", KINDS)
def test_the_parts_of_a_block_are_its_values_to_the_bit(kind: str) -> None:
    for seed in range(4):
        rng = np.random.default_rng(seed)
        for blocks in (any_rows(rng, 9, 512, kind), random_rows(rng, 9, 512, kind, 0.1)):
            wanted, found = to_floats(blocks, kind, 512), parts(blocks, kind).weights()
            assert np.array_equal(found, wanted), f"seed {seed}"


@pytest.mark.parametrize("kind", KINDS)
def test_random_blocks_are_of_about_the_deviation_asked_for(kind: str) -> None:
    values = to_floats(random_rows(np.random.default_rng(1), 64, 512, kind, 0.1), kind, 512)
    assert 0.05 < values.std() < 0.2
    assert abs(values.mean()) < 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_values_and_sizes_are_those_of_gguf(kind: str) -> None:
    assert set(QUANTISED) == set(KINDS)
    assert (row_bytes(kind, 512), row_bytes(kind, 1)) == (512 // BLOCK[kind] * BYTES[kind], BYTES[kind])
    blocks = any_rows(np.random.default_rng(2), 5, 512, kind)
    assert np.array_equal(
        dequantise(blocks, kind, 512).view(np.uint32), to_floats(blocks, kind, 512).view(np.uint32)
    )
    assert np.array_equal(dequantise(blocks, kind, 300), to_floats(blocks, kind, 512)[:, :300])


@pytest.mark.parametrize("kind", KINDS)
def test_scales_are_found(kind: str) -> None:
    blocks = any_rows(np.random.default_rng(3), 3, 1024, kind)
    count = 1024 // BLOCK[kind]
    raw = blocks.reshape(3, count, -1)
    wanted = [np.ascontiguousarray(raw[..., at : at + 2]).view(np.uint16)[..., 0] for at in SCALES[kind]]
    assert np.array_equal(scales(blocks, kind).view(np.uint16), np.stack(wanted, axis=-1))


@pytest.mark.parametrize("columns", [32, 40, 63, 96])
@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q8_0"])
def test_quantising_pads_with_zeros(kind: str, columns: int) -> None:
    rows = np.random.default_rng(4).normal(size=(7, columns)).astype(np.float32)
    blocks = quantise(rows, kind)
    assert blocks.shape == (7, row_bytes(kind, columns))
    whole = np.zeros((7, -(-columns // 32) * 32), np.float32)
    whole[:, :columns] = rows
    assert np.array_equal(blocks, gguf.quants.quantize(whole, gguf.GGMLQuantizationType[kind]))
    assert dequantise(blocks, kind, columns).shape == rows.shape


def test_widening() -> None:
    values = np.array([[1.5, -2.0, 0.0]], np.float32)
    assert np.array_equal(widen(values, "F32", 3), values)
    assert np.array_equal(widen(values.astype(np.float16), "F16", 3), values)
    assert np.array_equal(widen((values.view(np.uint32) >> 16).astype(np.uint16), "BF16", 3), values)
