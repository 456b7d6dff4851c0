"""RMSNorm, the quantisation of an input, and the greedy token of a head."""

from __future__ import annotations

import numpy as np
import pytest

from specee import _cpu
from specee.bench.kernels import references, tolerances
from specee.bench.kernels.blocks import Stored, random_rows

ISAS = _cpu.supported_isas()


@pytest.mark.parametrize("isa", ISAS)
def test_rms_norm(isa: str) -> None:
    for seed in range(40):
        rng = np.random.default_rng(seed)
        k = int(rng.integers(1, 700))
        x = rng.standard_normal(k, dtype=np.float32) * np.float32(10.0 ** rng.uniform(-4, 4))
        w, y = rng.uniform(0.5, 1.5, k).astype(np.float32), np.full(k, np.nan, dtype=np.float32)
        _cpu.ops.rms_norm(x, w, 1e-5, y, isa)
        expected = references.rms_norm(x, w, np.float32(1e-5))
        worst = np.abs(y - expected) - tolerances.rms_norm(expected, k)
        assert worst.max() <= 0, f"seed {seed}, {k} values"


@pytest.mark.parametrize("isa", ISAS)
def test_quantised_input_is_the_reference_to_the_bit(isa: str) -> None:
    for seed in range(60):
        rng = np.random.default_rng(seed)
        k = int(rng.integers(1, 300))
        x = rng.standard_normal(k, dtype=np.float32) * np.float32(10.0) ** rng.integers(-38, 37, k)
        x = x.astype(np.float32)
        if seed % 3 == 0:  # halves of a step: ties
            x = (rng.integers(-254, 255, k) / 2).astype(np.float32)
            x[:: references.BLOCK] = 127
        x[rng.integers(0, 2, k) == 0] *= np.float32(seed % 2)
        q, scale = _cpu.ops.quantize_row(x, isa)
        expected_q, expected_scale = references.quantise(x)
        np.testing.assert_array_equal(scale, expected_scale, err_msg=f"seed {seed}")
        np.testing.assert_array_equal(q, expected_q, err_msg=f"seed {seed}")
        assert np.abs(q.astype(int)).max() <= 127


@pytest.mark.parametrize("stored", references.FORMATS)
@pytest.mark.parametrize("isa", ISAS)
def test_greedy_token(isa: str, stored: str) -> None:
    """A token whose logit is the greatest but for rounding; of equal logits the first; in any company."""
    for seed in range(6):
        rng = np.random.default_rng(seed)
        k, vocab = 256 * int(rng.integers(1, 3)), int(rng.integers(2, 1200))
        matrix = random_rows(rng, vocab, k, stored, k**-0.5)
        x = rng.standard_normal((int(rng.choice([1, 2, 5, 8, 64])), k), dtype=np.float32)
        best = int(exact_logits(x[:1], matrix, stored)[0].argmax())
        twin = int(rng.integers(vocab))
        matrix[twin] = matrix[best]
        op = _cpu.ops.Head(vocab, k, stored, isa, 1 + seed % 3)
        op.set_rows(0, matrix, stored)
        tokens = op.argmax(x)
        logits = exact_logits(x, matrix, stored)
        floats = references.weights(matrix, stored, k)
        sizes = tolerances.norms(references.magnitudes(matrix, stored, floats))
        slack = 2 * tolerances.linear(np.full(len(x), 1.01 * k**0.5), sizes, k).max(axis=1)
        chosen = logits[np.arange(len(x)), tokens]
        assert (logits.max(axis=1) - chosen <= slack).all(), f"seed {seed}"
        assert tokens[0] == min(best, twin), f"seed {seed}"
        for row in range(len(x)):
            assert op.argmax(x[row : row + 1])[0] == tokens[row], f"seed {seed}, row {row}"
        shadows, confidences = op.shadow(x)
        assert (shadows == tokens).all(), f"seed {seed}"
        likely = logits.max(axis=1) - np.log(np.exp(logits).sum(axis=1))
        assert (np.abs(np.log(confidences) - likely) <= 2 * slack + 1e-5).all(), f"seed {seed}"


def exact_logits(x: np.ndarray, matrix: Stored, stored: str) -> np.ndarray:
    """Of the normed rows; a norm of ones has length sqrt(k)."""
    k = x.shape[1]
    ones = np.ones(k, dtype=np.float32)
    normed = np.stack([references.rms_norm(row, ones, 1e-5) for row in x]).astype(np.float32)
    return references.linear(normed, references.weights(matrix, stored, k), stored)
