"""The counter-based noise and the draws made with it."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from specee.sampling import gumbel, kept, penalised, philox, sample, uniforms
from specee.types import Sampling

# Known answers published with the generator (Random123, kat_vectors, philox4x32 10 rounds).
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN)
def test_philox_gives_the_published_answers(counter: tuple, key: tuple, answer: tuple) -> None:
    assert tuple(philox(np.array([counter], np.uint32), key)[0]) == answer


def test_uniforms_pick_words_as_documented() -> None:
    seed, position = (7 << 32) | 5, (3 << 32) | 2
    for token in (0, 1, 2, 3, 4, 50_001):
        word = philox(np.array([[token >> 2, 2, 3, 0]], np.uint32), (5, 7))[0, token & 3]
        assert uniforms(seed, position, [token])[0] == (int(word) + 0.5) / 2**32
        word = philox(np.array([[token >> 2, 2, 3, 9]], np.uint32), (5, 7))[0, token & 3]
        assert uniforms(seed, position, [token], stream=9)[0] == (int(word) + 0.5) / 2**32


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**40), st.lists(st.integers(0, 300_000), max_size=50))
def test_noise_depends_on_nothing_but_its_arguments(seed: int, position: int, ids: list[int]) -> None:
    together = uniforms(seed, position, ids)
    assert ((together > 0) & (together < 1)).all()
    assert together.tolist() == [uniforms(seed, position, [token])[0] for token in ids]
    assert np.isfinite(gumbel(seed, position, ids)).all()


def test_seed_position_token_and_stream_all_matter() -> None:
    grid = itertools.product((0, 1, 2**32), (0, 1, 2**32), (0, 1, 4), (0, 1))
    numbers = [uniforms(seed, position, [token], stream)[0] for seed, position, token, stream in grid]
    assert len(set(numbers)) == len(numbers)


def test_streams_are_independent() -> None:
    """Correlation of 20,000 pairs: 5 standard deviations are 5 / sqrt(20,000) = 0.035."""
    ids = np.arange(20_000)
    first, second = (gumbel(3, 7, ids, stream) for stream in (0, 1))
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.035
    assert np.corrcoef(first, first)[0, 1] > 0.035, "the test must tell streams apart"


def chi_square(counts: np.ndarray, probabilities: np.ndarray) -> float:
    wanted = probabilities * counts.sum()
    return float(((counts - wanted) ** 2 / wanted).sum())


def test_draws_follow_the_softmax() -> None:
    """Chi-square over 8 tokens with a fixed seed: 7 degrees of freedom, 0.1 % quantile 24.3."""
    logits = np.array([2.0, 1.0, 0.0, 0.5, -1.0, 1.5, 0.2, -0.5], np.float32)
    for temperature in (0.7, 1.0, 1.8):
        scaled = np.exp(logits.astype(np.float64) / temperature)
        counts = np.zeros(8)
        for position in range(4000):
            counts[sample(logits, Sampling(temperature, seed=11), position)] += 1
        assert chi_square(counts, scaled / scaled.sum()) < 24.3
    assert chi_square(counts, np.full(8, 1 / 8)) > 24.3, "the test must tell distributions apart"


def test_filters_draw_from_what_is_kept() -> None:
    """0.1 % quantile of chi-square with 2 degrees of freedom: 13.8."""
    logits = np.log(np.array([0.1, 0.4, 0.05, 0.3, 0.15], np.float32))
    # 0.15 is 0.375 times as likely as the likeliest, 0.1 a quarter.
    options = (Sampling(1.0, top_k=3), Sampling(1.0, top_p=0.8), Sampling(1.0, min_p=0.3))
    for option in (replace(option, seed=3) for option in options):
        drawn = [sample(logits, option, position) for position in range(3000)]
        counts = np.bincount(drawn, minlength=5)
        assert counts[[0, 2]].sum() == 0
        assert chi_square(counts[[1, 3, 4]], np.array([0.4, 0.3, 0.15]) / 0.85) < 13.8


LOGITS = st.lists(st.floats(-30, 30, width=32), min_size=1, max_size=40).map(
    lambda x: np.array(x, np.float32)
)


@given(LOGITS, st.integers(0, 2**64 - 1), st.integers(0, 10_000))
def test_limits_are_greedy(logits: np.ndarray, seed: int, position: int) -> None:
    best = int(np.argmax(logits))
    assert sample(logits, Sampling(0.0, top_k=3, top_p=0.2, seed=seed), position) == best
    tops = np.flatnonzero(logits == logits[best])
    assert sample(logits, Sampling(1.0, top_k=1, seed=seed), position) in tops
    assert sample(logits, Sampling(1.0, top_p=1e-12, seed=seed), position) == best
    assert sample(logits, Sampling(0.7, min_p=1.0, seed=seed), position) in tops
    gaps = logits[best] - np.delete(logits, tops)
    if gaps.size == 0 or gaps.min() > 0.1:  # Gumbel noise of these words stays within -4 .. 23
        assert sample(logits, Sampling(1e-3, seed=seed), position) in tops


@given(LOGITS, st.integers(0, 45), st.floats(0.01, 1.0))
def test_what_is_kept(logits: np.ndarray, top_k: int, top_p: float) -> None:
    ids, scores = kept(logits, Sampling(1.0, top_k, top_p))
    assert 1 <= len(ids) <= len(logits)
    assert np.array_equal(scores, logits[ids].astype(np.float64))
    by_k, _ = kept(logits, Sampling(1.0, top_k))
    if top_k:
        assert len(by_k) >= min(top_k, len(logits))
        assert set(np.flatnonzero(logits > logits[by_k].min())) <= set(by_k)
    assert set(ids) <= set(by_k)
    mass = np.exp(logits[by_k].astype(np.float64) - logits.max())
    chosen = np.exp(scores - logits.max())
    assert chosen.sum() >= top_p * mass.sum() * (1 - 1e-12)
    assert chosen[:-1].sum() < top_p * mass.sum() * (1 + 1e-12) or len(ids) == 1 or top_p == 1.0


@given(LOGITS, st.integers(0, 45), st.floats(0.01, 1.0), st.floats(1e-6, 1.0), st.floats(0.1, 3.0))
def test_min_p_acts_on_what_is_left(
    logits: np.ndarray, top_k: int, top_p: float, min_p: float, temperature: float
) -> None:
    before, scores = kept(logits, Sampling(temperature, top_k, top_p))
    after, likely = kept(logits, Sampling(temperature, top_k, top_p, min_p=min_p))
    ratios = np.exp(scores - scores.max())
    assert set(after) <= set(before)
    assert set(before[ratios >= min_p * (1 + 1e-12)]) <= set(after)
    assert np.exp(likely - scores.max()).min() >= min_p * (1 - 1e-12)
    assert int(np.argmax(logits)) in after


def test_min_p_keeps_its_boundary() -> None:
    logits = np.array([0.0, np.float32(math.log(0.5)), -5.0], np.float32)
    exact = math.exp(float(logits[1]))
    assert kept(logits, Sampling(1.0, min_p=exact * (1 - 1e-9)))[0].tolist() == [0, 1]
    assert kept(logits, Sampling(1.0, min_p=exact * (1 + 1e-9)))[0].tolist() == [0]
    # At a higher temperature the second is likelier.
    assert kept(logits, Sampling(2.0, min_p=exact * (1 + 1e-9)))[0].tolist() == [0, 1]


@given(LOGITS, st.lists(st.integers(0, 39), max_size=60), st.floats(0.5, 2.0))
def test_a_penalty_counts_each_token_once(logits: np.ndarray, path: list[int], penalty: float) -> None:
    path = [token % len(logits) for token in path]
    before = logits.copy()
    changed = penalised(logits, path, penalty)
    assert changed.dtype == np.float32
    assert np.array_equal(logits, before), "the argument stays as it is"
    by = np.float32(penalty)
    for token, (old, new) in enumerate(zip(logits, changed, strict=True)):
        wanted = (old * by if old < 0 else old / by) if token in path else old
        assert new == wanted
    assert np.array_equal(penalised(logits, path, 1.0), logits)
    assert np.array_equal(penalised(logits, path[::-1] + path, penalty), changed)


def test_a_penalty_can_change_the_best() -> None:
    logits = np.array([2.0, 1.5, -1.0, -1.1], np.float32)
    assert sample(penalised(logits, [0], 1.5), Sampling(), 0) == 1
    assert sample(penalised(logits, [0, 1, 2], 1.5), Sampling(), 0) == 0
    assert sample(penalised(logits[2:], [0], 1.5), Sampling(), 0) == 1


def test_ties() -> None:
    logits = np.array([1.0, 3.0, 3.0, 3.0, 0.0], np.float32)
    assert kept(logits, Sampling(1.0, top_k=1))[0].tolist() == [1, 2, 3]
    assert kept(logits, Sampling(1.0, top_k=3, top_p=0.6))[0].tolist() == [1, 2]
    assert kept(logits, Sampling(1.0, min_p=1.0))[0].tolist() == [1, 2, 3]
    assert sample(logits, Sampling(), 0) == 1
