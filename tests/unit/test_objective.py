"""The objective against arithmetic by hand, brute force over lengths, and DEL's formula."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from specee.policies import Latency
from specee.policies.latency import interpolated
from specee.policies.objective import LONGEST, Acceptance, Choice, Objective, objective_of
from tests.unit.judged import best_stopped

ROWS = (1, 2, 4, 8, 16)
TABLE = Latency((1, 2, 4), (10.0, 12.0, 20.0), (5.0, 6.0, 8.0), 0.5, 2.0)
LENGTHS = range(1, LONGEST + 1)


# Tables


def test_between_and_beyond_the_points_of_a_table() -> None:
    assert [TABLE.layers_seconds(1, rows) for rows in (1, 2, 3, 4, 6)] == [10, 12, 16, 20, 28]
    assert TABLE.layers_seconds(3, 1.5) == 3 * 11
    assert TABLE.head_seconds(2.5) == 6.5
    assert TABLE.head_seconds(0) == TABLE.layers_seconds(4, -1) == 0
    assert interpolated((3,), (7.0,), 1) == interpolated((3,), (7.0,), 9) == 7.0
    assert interpolated((2, 3), (5.0, 50.0), 1) == 0.0, "never less than nothing"


def test_the_same_table_has_one_objective() -> None:
    again = Latency(*TABLE)
    assert objective_of(TABLE, 6, 1) is objective_of(again, 6, 1)
    other = TABLE._replace(call=0.6)
    for table, layers, sequences in ((TABLE, 7, 1), (TABLE, 6, 2), (other, 6, 1)):
        found = objective_of(table, layers, sequences)
        assert found is not objective_of(TABLE, 6, 1)
        assert found.plain == Objective(table, layers, sequences).plain


# Seconds of a round


def test_a_round_by_hand() -> None:
    objective = Objective(TABLE, layers=6)
    assert objective.plain == 6 * 10 + 5 + 2.5
    # Two drafts at layer 2 with half a head: two rows through 2 layers, a third row, and 3 rows above.
    assert objective.seconds(2, 0.5, 2) == 2 * (2 * 10 + 0.5 * 5) + 2 * 10 + 4 * 16 + 7 + 2.5
    assert objective.seconds(2, 1.0, 0) == objective.plain
    # Copies: no layer and no head for them, but 4 rows to verify in all layers.
    assert objective.seconds(0, 0.0, 3) == 6 * 20 + 8 + 2.5
    assert objective.shadow_seconds(3) == 7 + 0.5


def test_parts_of_a_draft_lie_between() -> None:
    objective = Objective(TABLE, layers=6)
    for layer, head in ((0, 0.0), (1, 1.0), (5, 0.3)):
        for drafts, share in ((0, 0.5), (1, 0.25), (3, 0.75), (16, 0.9)):
            low, high = (objective.seconds(layer, head, drafts + more) for more in (0, 1))
            assert objective.seconds(layer, head, drafts + share) == pytest.approx(low + share * (high - low))
    assert objective.seconds(3, 1.0, LONGEST) > 0


def test_sequences_step_together() -> None:
    """Two sequences draft two rows at a time, and have 2 (d + 1) rows verified."""
    objective = Objective(TABLE, layers=6, sequences=2)
    assert objective.plain == 6 * 12 + 6 + 2.5
    assert objective.seconds(2, 0.5, 1) == (2 * 12 + 0.5 * 6) + 2 * 12 + 4 * 20 + 8 + 2.5
    assert objective.seconds(0, 0.0, 2) == 6 * 28 + 10 + 2.5
    three = Objective(TABLE, layers=6, sequences=3)
    assert three.seconds(4, 1.0, 1) == (4 * 16 + 7) + 4 * 16 + 2 * 28 + 10 + 2.5
    assert three.seconds(4, 1.0, 2) == 2 * (4 * 16 + 7) + 4 * 16 + 2 * 40 + 13 + 2.5
    assert three.seconds(4, 1.0, 1.5) == (three.seconds(4, 1.0, 1) + three.seconds(4, 1.0, 2)) / 2


# Lengths


def plausible(rng: random.Random, convex: bool = False) -> Latency:
    """As a meter gives: more rows never take less, nor more than they would in smaller passes."""

    def column(scale: float) -> tuple[float, ...]:
        each = [rng.uniform(0.0, 1.0) for _ in ROWS]
        if convex:
            each.sort()
        seconds = [scale]
        for (a, b), more in zip(pairwise(ROWS), each, strict=False):
            seconds.append(min(seconds[-1] + scale * more * (b - a), seconds[-1] * b / a))
        return tuple(seconds)

    scale = 10 ** rng.uniform(-6, -2)
    small = [scale * rng.uniform(0, 0.5) for _ in range(2)]
    return Latency(ROWS, column(scale), column(scale * rng.uniform(0.1, 10)), *small)


def fixed(objective: Objective, layer: int, head: float, rate: float, length: int) -> float:
    tokens = sum(rate**i for i in range(length + 1))
    return tokens * objective.plain / objective.seconds(layer, head, length)


def brute(objective: Objective, layer: int, head: float, rate: float) -> Choice:
    values = {length: fixed(objective, layer, head, rate, length) for length in LENGTHS}
    length = max(values, key=lambda length: values[length])
    return Choice(length, values[length])


@pytest.mark.parametrize("convex", [True, False])
def test_the_best_length_is_that_of_an_exhaustive_search(convex: bool) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    rng = random.Random(seed)
    lengths = set()
    for _ in range(300):
        layers = rng.randint(1, 40)
        objective = Objective(plausible(rng, convex), layers, rng.choice([1, 1, 2, 5]))
        layer = rng.randrange(layers)
        head = rng.choice([1.0, rng.random()]) if layer else 0.0
        rate = rng.randint(0, 64) / 64  # rates are told apart to that much
        found, wanted = objective.best(layer, head, rate), brute(objective, layer, head, rate)
        assert found.value == pytest.approx(wanted.value)
        assert fixed(objective, layer, head, rate, found.length) == pytest.approx(found.value)
        lengths.add(found.length)
    assert len(lengths) > 1, "several lengths must be the best at times"


def test_the_value_may_rise_again_after_it_has_fallen() -> None:
    """Rows in blocks of eight: five drafts cost as much as twelve."""
    table = Latency((1, 4, 5, 16), (1.0, 1.0, 2.0, 2.0), (0.1, 0.1, 0.1, 0.1))
    objective = Objective(table, 10)
    values = [fixed(objective, 0, 0.0, 0.99, length) for length in LENGTHS]
    assert values[2] > values[3] < values[12] > values[2]
    assert values.index(max(values)) > 12
    rate = 63 / 64
    for choice in (
        objective.best(0, 0.0, rate),
        best_stopped(objective, 0, 0.0, Acceptance(1.0, rate, 0.0)),
    ):
        assert choice.length > 12
        assert choice.value == pytest.approx(brute(objective, 0, 0.0, rate).value)


def test_a_search_that_stops_at_the_first_peak_would_be_noticed() -> None:
    rng = random.Random(1)
    missed = 0
    for _ in range(300):
        objective = Objective(plausible(rng), rng.randint(2, 40))
        values = [fixed(objective, 1, 1.0, 0.9, length) for length in LENGTHS]
        peak = next((i for i in range(LONGEST - 1) if values[i + 1] <= values[i]), LONGEST - 1)
        missed += values[peak] < 0.999 * max(values)
    assert missed > 0


def test_dels_tokens_per_layer() -> None:
    """Where only layers take time: (1 - a^(d+1)) / (1 - a) / (L + d l), over 1 / L of plain decoding."""
    layers = 30
    objective = Objective(Latency((1,), (1.0,), (0.0,)), layers)
    assert objective.plain == layers
    for layer in (1, 6, 20, 29):
        for rate in (0.25, 0.5, 0.875, 63 / 64):
            each = [layers * (1 - rate ** (d + 1)) / (1 - rate) / (layers + d * layer) for d in LENGTHS]
            choice = objective.best(layer, 1.0, rate)
            assert choice.value == pytest.approx(max(each))
            assert each[choice.length - 1] == pytest.approx(max(each))
            assert choice == objective.best(layer, 0.1, rate), "no head is counted"
        assert objective.best(layer, 1.0, 1.0).length == LONGEST
    batch = Objective(Latency((1,), (1.0,), (0.0,)), layers, sequences=4)
    assert batch.best(6, 1.0, 0.75) == objective.best(6, 1.0, 0.75)


def test_drafts_never_or_always_right() -> None:
    objective = Objective(TABLE, layers=6)
    nothing = objective.best(2, 1.0, 0.0)
    assert nothing.length == 1
    assert nothing.value == pytest.approx(objective.plain / objective.seconds(2, 1.0, 1))
    assert nothing.value < 1
    free = Objective(Latency((1,), (1.0,), (0.1,)), 6)
    always = free.best(0, 0.0, 1.0)
    assert always.length == LONGEST
    assert always.value == pytest.approx(LONGEST + 1), "rows cost nothing there"
    assert objective.best(2, 1.0, 1.0).value == pytest.approx(brute(objective, 2, 1.0, 1.0).value)


def test_rates_are_told_apart_to_a_sixty_fourth() -> None:
    objective = Objective(TABLE, layers=6)
    choice = objective.best(2, 1.0, 0.8)
    assert choice is objective.best(2, 1.0, 51 / 64), "made once"
    assert choice is not objective.best(2, 1.0, 52 / 64)
    assert choice is not objective.best(2, 0.5, 0.8)
    assert choice is not objective.best(1, 1.0, 0.8)


# Drafting that stops after a draft that is not sure


def expected(rates: Acceptance, length: int) -> tuple[float, float]:
    """Drafts made, and accepted, by what may happen to the first one of ``length``."""
    if length == 0:
        return 0.0, 0.0
    drafts, accepted = expected(rates, length - 1)
    goes_on = rates.sure * rates.rate_sure
    alone = goes_on + (1 - rates.sure) * rates.rate_unsure
    return 1 + rates.sure * drafts, alone + goes_on * accepted


def told_apart(rng: random.Random) -> Acceptance:
    """Shares of drafts that are sure, sure and right, and right, are told apart to a sixty-fourth."""
    sure = rng.randint(1, 64)
    unsure = 64 - sure
    return Acceptance(
        sure / 64, round(sure * rng.random() ** 0.2) / sure, rng.randint(0, unsure) / max(unsure, 1)
    )


def stopped(objective: Objective, layer: int, head: float, rates: Acceptance, length: int) -> float:
    drafts, accepted = expected(rates, length)
    return (1 + accepted) * objective.plain / objective.seconds(layer, head, drafts)


def test_stopped_drafts_are_worth_what_a_recursion_gives() -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    rng = random.Random(seed)
    lengths = set()
    for _ in range(300):
        layers = rng.randint(2, 40)
        objective = Objective(plausible(rng), layers, rng.choice([1, 3]))
        layer, head = rng.randrange(1, layers), rng.choice([1.0, rng.random()])
        rates = told_apart(rng)
        found = best_stopped(objective, layer, head, rates)
        values = [stopped(objective, layer, head, rates, length) for length in LENGTHS]
        assert found.value == pytest.approx(max(values))
        assert values[found.length - 1] == pytest.approx(max(values))
        lengths.add(found.length)
    assert len(lengths) > 3


def test_drafts_that_are_all_sure_are_not_stopped() -> None:
    objective = Objective(TABLE, layers=6)
    for rate in (0.0, 0.5, 0.75, 1.0):
        assert best_stopped(objective, 2, 0.5, Acceptance(1.0, rate, 0.3)) == objective.best(2, 0.5, rate)
    for unsure in (0.0, 0.5, 1.0):  # the first is the only one
        found = best_stopped(objective, 2, 0.5, Acceptance(0.0, 0.9, unsure))
        assert found.length == 1
        assert found.value == pytest.approx((1 + unsure) * objective.plain / objective.seconds(2, 0.5, 1))


def test_confidence_that_tells_right_from_wrong_is_worth_something() -> None:
    """Of all drafts 3 in 4 are right: known beforehand, or not."""
    objective = Objective(Latency((1,), (1.0,), (0.0,)), 20)
    blind = best_stopped(objective, 5, 1.0, Acceptance(0.75, 0.75, 0.75))
    told = best_stopped(objective, 5, 1.0, Acceptance(0.75, 1.0, 0.0))
    assert told.value > objective.best(5, 1.0, 0.75).value
    assert told.value > blind.value
