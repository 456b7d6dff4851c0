"""What is known of one layer's drafts: decayed counts, rates, thresholds."""

from __future__ import annotations

import random

import pytest

from specee.policies.evidence import DECAY, Evidence
from specee.policies.objective import Acceptance
from tests.unit.plain_exit_choice import ExitEvidence


def test_nothing_seen() -> None:
    evidence = Evidence()
    assert not evidence.seen
    assert (evidence.raw_rate, evidence.rate, evidence.weight(100)) == (0.0, 0.5, 0.0)
    assert evidence.threshold == 0.5, "halfway between certain and worth nothing"
    assert evidence.acceptance == Acceptance(0.5, 0.5, 0.5)
    evidence.add([], [], 3)
    assert not evidence.seen


def test_counts_by_hand() -> None:
    evidence = Evidence()
    evidence.add([True, True, False], [0.9, 0.7, 0.2], 0)
    assert evidence.raw_rate == pytest.approx(2 / 3)
    assert evidence.rate == pytest.approx(2.25 / 3.5), "half a draft of doubt"
    assert evidence.threshold == pytest.approx((0.8 + 0.2) / 2)
    evidence.add([False, True], [0.6, 0.5], 2)
    assert DECAY == 0.95
    hits, misses = 2 * 0.95**2 + 1, 0.95**2 + 1
    assert evidence.raw_rate == pytest.approx(hits / (hits + misses))
    mean_hit, mean_miss = (0.95**2 * 1.6 + 0.5) / hits, (0.95**2 * 0.2 + 0.6) / misses
    assert evidence.threshold == pytest.approx((mean_hit + mean_miss) / 2)
    assert evidence.weight(2) == pytest.approx(hits + misses)
    assert evidence.weight(5) == pytest.approx((hits + misses) * 0.95**3)
    sure, sure_hits = 2 * 0.95**2 + 2, 2 * 0.95**2 + 1  # 0.6 and 0.5 reach the threshold of their time
    seen = hits + misses
    assert evidence.acceptance == pytest.approx(
        (
            (sure + 0.25) / (seen + 0.5),
            (sure_hits + 0.25) / (sure + 0.5),
            (hits - sure_hits + 0.25) / (seen - sure + 0.5),
        )
    )


def test_counts_of_random_rounds() -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    rng = random.Random(seed)
    evidence, kept, now = Evidence(), list[tuple[float, bool, float]](), 0
    for _ in range(60):
        now += rng.randint(0, 3)
        count = rng.randint(0, 5)
        matches = [rng.random() < 0.7 for _ in range(count)]
        confidences = [rng.random() for _ in range(count)]
        evidence.add(matches, confidences, now)
        kept += [(now, *pair) for pair in zip(matches, confidences, strict=True)]
        weights = {kind: [0.95 ** (now - at) for at, hit, _ in kept if hit is kind] for kind in (True, False)}
        hits, misses = sum(weights[True]), sum(weights[False])
        if not kept:
            continue
        assert evidence.raw_rate == pytest.approx(hits / (hits + misses))
        assert evidence.weight(now) == pytest.approx(hits + misses)
        trust = {
            kind: sum(0.95 ** (now - at) * sure for at, hit, sure in kept if hit is kind)
            for kind in (True, False)
        }
        means = trust[True] / hits if hits else 1.0, trust[False] / misses if misses else 0.0
        assert evidence.threshold == pytest.approx(sum(means) / 2)
        assert 0 <= evidence.threshold <= 1
        assert all(0 < share < 1 for share in evidence.acceptance)


def test_less_evidence_is_the_same_evidence() -> None:
    evidence = Evidence()
    evidence.add([True] * 90 + [False] * 10, [0.9] * 90 + [0.3] * 10, 0)
    before = evidence.raw_rate, evidence.threshold
    evidence.cap(200.0)
    assert evidence.weight(0) == pytest.approx(100)
    evidence.cap(40.0)
    assert evidence.weight(0) == pytest.approx(40)
    evidence.fade(0.5)
    assert evidence.weight(0) == pytest.approx(20)
    assert (evidence.raw_rate, evidence.threshold) == pytest.approx(before)


def test_surprise_is_ten_times_the_misses_expected() -> None:
    evidence = ExitEvidence()
    assert not evidence.surprised_by([], 0)
    assert not evidence.surprised_by([False] * 9, 9), "nothing was expected"
    evidence.add([True] * 40, [0.9] * 40, 0)  # rate 0.994
    assert evidence.surprised_by([True] * 3 + [False] * 2, 5)
    assert not evidence.surprised_by([True] * 4, 4)
    assert not evidence.surprised_by([True] * 38 + [False] * 2, 40)
    evidence.add([False] * 10, [0.1] * 10, 0)
    assert not evidence.surprised_by([False] * 4, 4)


def test_one_miss_may_be_chance() -> None:
    evidence = ExitEvidence()
    evidence.add([True] * 40, [0.9] * 40, 0)
    assert not evidence.surprised_by([True] * 3 + [False], 8), "there was something right"
    assert not evidence.surprised_by([False], 3)
    assert evidence.surprised_by([False], 4), "many drafts came for nothing"
    evidence.add([False], [0.3], 1)
    assert evidence.surprised_by([False], 1), "the second one in a row"
    evidence.add([True, False], [0.9, 0.3], 2)
    assert not evidence.surprised_by([False], 1), "there was something right between"
