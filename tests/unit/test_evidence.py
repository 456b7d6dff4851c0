"""What policies know: decayed counts, the layer they lead to, copies, and the time that looks may take."""

from __future__ import annotations

import random

import pytest

from specee.policies import Latency
from specee.policies.evidence import DECAY, Evidence
from specee.policies.exit_choice import ExitChoice
from specee.policies.lookup_choice import LookupChoice
from specee.policies.objective import Acceptance, Objective
from specee.policies.shadow_budget import ASIDE, DRAFTING, NEAR, ShadowBudget

LAYERS = 30
OWN = [(layer, 1.0) for layer in range(1, LAYERS)]
# Rows are nearly free, as where weights are what takes time.
FLAT = Latency((1, 16), (1e-4, 1.3e-4), (2e-4, 3e-4), 1e-6, 1e-5, 1e-6)


def objective(latency: Latency = FLAT) -> Objective:
    return Objective(latency, LAYERS)


# Evidence


def test_nothing_seen() -> None:
    evidence = Evidence()
    assert not evidence.seen
    assert (evidence.raw_rate, evidence.rate, evidence.weight(100)) == (0.0, 0.5, 0.0)
    assert evidence.threshold == 0.5, "halfway between certain and worth nothing"
    assert evidence.acceptance == Acceptance(0.5, 0.5, 0.5)
    evidence.add([], [], 3)
    assert not evidence.seen
    assert not evidence.surprised_by([])


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
    evidence = Evidence()
    assert not evidence.surprised_by([False] * 9), "nothing was expected"
    evidence.add([True] * 40, [0.9] * 40, 0)  # rate 0.994
    assert evidence.surprised_by([True] * 3 + [False])
    assert not evidence.surprised_by([True] * 4)
    assert not evidence.surprised_by([True] * 39 + [False])
    evidence.add([False] * 10, [0.1] * 10, 0)
    assert not evidence.surprised_by([False] * 4)


# The exit layer


def shown(
    choice: ExitChoice, layer: int, right: int, wrong: int, now: float = 0.0, sure: float = 0.9
) -> None:
    choice.learn(layer, [True] * right + [False] * wrong, [sure] * right + [0.2] * wrong, now)


def test_the_layer_worth_most_is_chosen() -> None:
    choice, judge = ExitChoice(OWN), objective()
    assert choice.best(judge, 0) is None
    shown(choice, 20, 12, 0)
    best = choice.best(judge, 0)
    assert best is not None
    assert (best.layer, best.value > 1) == (20, True)
    shown(choice, 6, 12, 0)
    shallow = choice.best(judge, 0)
    assert shallow is not None
    assert shallow.layer == 6
    assert shallow.value > best.value
    shown(choice, 6, 0, 30)
    after = choice.best(judge, 0)
    assert after is not None
    assert after.layer == 20
    other = objective(Latency((1,), (1e-4,), (1.0,)))  # a head that outweighs everything
    expensive = choice.best(other, 0)
    assert expensive is not None
    assert expensive.value < 1.05


def test_what_has_decayed_away_is_forgotten() -> None:
    choice, judge = ExitChoice(OWN), objective()
    shown(choice, 8, 4, 0)
    for now in range(27):  # 4 * 0.95^27 is just above one draft
        assert choice.best(judge, now) is not None
    assert choice.best(judge, 28) is None
    shown(choice, 8, 4, 0, now=28)
    shown(choice, 20, 4, 0, now=50)
    best = choice.best(judge, 57)
    assert best is not None
    assert best.layer == 20


def test_the_first_look_is_spread_over_all_layers_that_may_pay() -> None:
    choice, judge = ExitChoice(OWN), objective()
    first = choice.worth_a_look(judge, 0, 1.03, 4)
    assert len(first) == 4
    assert list(first) == sorted(set(first))
    assert first[0] <= LAYERS // 4
    assert first[-1] >= LAYERS // 2
    assert choice.worth_a_look(judge, 0, 100.0, 4) == (), "nothing can be worth that much"
    for layers in (1, 2, 3, 4, 5):
        few = ExitChoice([(layer, 0.2) for layer in range(3, 3 + layers)])
        assert len(few.worth_a_look(judge, 0, 1.03, 4)) == min(layers, 4)
        assert few.layers == tuple(range(3, 3 + layers))


def step_found(k: int, looks: int, *, narrow: bool = True) -> tuple[float, int]:
    """Share of the best value, and the layer, once layers from ``k`` on are right and others wrong."""
    choice, judge = ExitChoice(OWN), objective()
    able = ExitChoice(OWN)
    shown(able, k, 4, 0)
    most = able.best(judge, 0)
    assert most is not None
    now, value = 0.0, 0.0
    for _ in range(looks):
        layers = choice.worth_a_look(judge, now, max(1.03, 1.02 * value), 4)
        now += 1
        for layer in layers if narrow or now == 1 else ():
            shown(choice, layer, 4 * (layer >= k), 4 * (layer < k), now)
        best = choice.best(judge, now)
        value = best.value if best is not None and best.value > 1 else 0.0
    best = choice.best(judge, now)
    return (0.0, 0) if best is None else (best.value / most.value, best.layer)


@pytest.mark.parametrize("k", range(1, 22))
def test_looks_narrow_the_gap_to_where_layers_begin_to_be_right(k: int) -> None:
    share, layer = step_found(k, looks=6)
    assert k <= layer <= k + 2
    assert share > 0.93


def test_a_choice_that_looks_once_would_not_find_it() -> None:
    assert min(step_found(k, looks=6, narrow=False)[0] for k in range(1, 22)) < 0.85


def test_a_layer_under_one_that_fails_is_not_worth_a_look() -> None:
    choice, judge = ExitChoice(OWN), objective()
    shown(choice, 20, 0, 20)
    layers = choice.worth_a_look(judge, 0, 1.03, 4)
    assert layers
    assert min(layers) > 20
    shown(choice, 29, 0, 40)
    assert choice.worth_a_look(judge, 0, 1.03, 4) == (), "deeper ones are wrong already"
    assert choice.worth_a_look(judge, 200, 1.03, 4) != (), "until that is forgotten"


def test_a_surprise_leaves_less_of_what_others_have_shown() -> None:
    choice, judge = ExitChoice(OWN), objective()
    shown(choice, 6, 40, 0)
    shown(choice, 20, 40, 0)
    for now in (1, 2, 3):
        shown(choice, 6, 0, 4, now)
        shown(choice, 20, 4, 0, now)
    best = choice.best(judge, 3)
    assert best is not None
    assert best.layer == 20
    assert best.value > 1


def test_cheap_heads_of_few_layers() -> None:
    choice, judge = ExitChoice([(4, 0.2), (9, 0.3)]), objective()
    assert choice.worth_a_look(judge, 0, 1.03, 4) == (4, 9)
    shown(choice, 4, 3, 1)
    shown(choice, 9, 4, 0)
    best = choice.best(judge, 0)
    assert best is not None
    assert best.layer in (4, 9)
    dear = ExitChoice([(4, 3.0), (9, 3.0)])
    shown(dear, 4, 3, 1)
    shown(dear, 9, 4, 0)
    worse = dear.best(judge, 0)
    assert worse is not None
    assert worse.value < best.value


# Copies


def test_copies_pay_until_they_fail() -> None:
    choice, judge = LookupChoice(), objective()
    first = choice.rate(0)
    assert first == 0.7
    for now in range(1, 6):
        choice.learn(5, 5, now)
    good = choice.best(judge, 5)
    assert choice.rate(5) > 0.9
    assert good.length > 5
    for now in range(6, 46):
        choice.learn(5, 0, now)
    bad = choice.best(judge, 45)
    assert choice.rate(45) < 0.2
    assert bad.value < good.value
    assert choice.rate(1000) == pytest.approx(first), "what did not pay is tried again"
    alone = LookupChoice()
    alone.learn(4, 2, 1)  # two right and the third wrong: the fourth says nothing
    assert alone.rate(1) == pytest.approx((2 + 0.7) / (3 + 1))


# Time for looks


def test_looks_never_take_more_than_their_share() -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    rng = random.Random(seed)
    refused = 0
    for _ in range(100):
        budget, plain = ShadowBudget(), rng.uniform(1e-3, 1e-1)
        steps = rng.randint(1, 300)
        spent = aside = drafting = 0.0
        for left in range(steps, 0, -1):
            pays, near = rng.random() < 0.4, rng.random() < 0.3
            cost = rng.uniform(0, 0.5) * plain
            share = NEAR if near else ASIDE
            allowed = budget.affords(cost, left * plain, near=near)
            assert allowed == (
                spent + cost <= share * (aside + left * plain / 2) + DRAFTING * drafting + 1e-15
            )
            refused += not allowed
            shadow, seconds = cost if allowed else 0.0, plain * rng.uniform(0.9, 1.1)
            budget.note(seconds + shadow, shadow, drafting=pays)
            spent += shadow
            aside += 0.0 if pays else seconds + shadow
            drafting += seconds + shadow if pays else 0.0
            assert (
                spent <= NEAR * (aside + left * plain / 2 + plain) + DRAFTING * drafting + shadow * DRAFTING
            )
    assert refused > 100


def test_a_short_text_affords_no_look() -> None:
    budget = ShadowBudget()
    assert not budget.affords(0.1, 1.0, near=True)
    assert budget.affords(0.1, 100.0, near=True)
    assert not budget.affords(0.1, 1.0, near=False)
    budget.note(1.0, 0.0, drafting=True)
    budget.note(1.0, 0.0, drafting=True)
    assert budget.affords(0.1, 1.0, near=False)
