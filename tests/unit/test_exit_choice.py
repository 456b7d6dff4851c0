"""The layer that evidence leads to, and the layers that are worth a look."""

from __future__ import annotations

import random

import pytest

from specee.policies import Latency
from specee.policies.objective import Objective
from tests.unit.judged import LAYERS, objective
from tests.unit.native_exits import NativeExitChoice
from tests.unit.plain_exit_choice import ExitChoice

OWN = [(layer, 1.0) for layer in range(1, LAYERS)]


def shown(
    choice: ExitChoice | NativeExitChoice,
    layer: int,
    right: int,
    wrong: int,
    now: float = 0.0,
    sure: float = 0.9,
) -> None:
    choice.learn(layer, [True] * right + [False] * wrong, [sure] * right + [0.2] * wrong, now)


def test_the_layer_worth_most_is_chosen() -> None:
    choice, judge = NativeExitChoice(OWN), objective()
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
    choice, judge = NativeExitChoice(OWN), objective()
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
    choice, judge = NativeExitChoice(OWN), objective()
    first = choice.worth_a_look(judge, 0, 1.03, 4)
    assert len(first) == 4
    assert list(first) == sorted(set(first))
    assert first[0] <= LAYERS // 4
    assert first[-1] >= LAYERS // 2
    assert choice.worth_a_look(judge, 0, 100.0, 4) == (), "nothing can be worth that much"
    for layers in (1, 2, 3, 4, 5):
        few = NativeExitChoice([(layer, 0.2) for layer in range(3, 3 + layers)])
        assert len(few.worth_a_look(judge, 0, 1.03, 4)) == min(layers, 4)


def hopeful(choice: ExitChoice, judge: Objective, now: float, at_least: float) -> list[int]:
    """Layers that may be worth as much, asked one by one, and the ends of the gap under the best one."""
    bound, able, under = 1.0, [], 0
    best = choice.best(judge, now)
    for layer in range(LAYERS - 1, 0, -1):
        evidence = choice._evidence.get(layer)
        seen = 0.0 if evidence is None else evidence.weight(now)
        if evidence is not None and seen >= 2.5:
            rate = evidence.rate
            bound = min(bound, rate + (rate * (1 - rate) / (seen + 1)) ** 0.5 + 0.5 / (seen + 1))
            if judge.best(layer, 1.0, bound).value <= at_least and best is not None and layer < best.layer:
                under = max(under, layer)
        elif judge.best(layer, 1.0, bound).value > at_least:
            able.append(layer)
    able.reverse()
    if best is None:
        return able
    deeper = [layer for layer in able if layer > best.layer]
    if best.value <= 0.97:
        return deeper or able
    return [layer for layer in able if under < layer < best.layer] + deeper


def test_looks_are_at_all_that_may_be_worth_as_much_and_at_no_others() -> None:
    """As asking for each layer by itself would find, whatever the machine and whatever is known.

    Of the plain choice: the native one finds the same (test_native_exits.py).
    """
    seed = random.randrange(2**32)
    print("seed", seed)
    rng = random.Random(seed)
    found, paid = set(), 0
    for _ in range(300):
        each, head = rng.random(), rng.uniform(0.1, 10)  # parts of a row's time that another one takes
        table = Latency((1, 16), (1e-4, 1e-4 * (1 + 15 * each)), (1e-4 * head, 1e-4 * head * (1 + 15 * each)))
        choice, judge, at_least = ExitChoice(OWN), objective(table), rng.uniform(1.0, 2.5)
        for layer in rng.sample(range(1, LAYERS), rng.randrange(6)):
            right = rng.randint(0, 20)
            shown(choice, layer, right, rng.randint(0, 20) if right else 20, rng.uniform(-30, 0))
        choice._forget(0)  # what has decayed
        able = hopeful(choice, judge, 0, at_least)
        looks = choice.worth_a_look(judge, 0, at_least, 2 * LAYERS)
        assert [layer for layer in looks if layer in able] == able
        assert set(looks) <= {1, *able}
        found.add(len(able))
        best = choice.best(judge, 0)
        paid += best is not None and best.value > 1
    assert len(found) > 5
    assert paid > 20


def step_found(k: int, looks: int, *, narrow: bool = True) -> tuple[float, int]:
    """Share of the best value, and the layer, once layers from ``k`` on are right and others wrong."""
    choice, judge = NativeExitChoice(OWN), objective()
    able = NativeExitChoice(OWN)
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
    choice, judge = NativeExitChoice(OWN), objective()
    shown(choice, 20, 0, 20)
    layers = choice.worth_a_look(judge, 0, 1.03, 4)
    assert layers
    assert min(layers) > 20
    shown(choice, 29, 0, 40)
    assert choice.worth_a_look(judge, 0, 1.03, 4) == (), "deeper ones are wrong already"
    assert choice.worth_a_look(judge, 200, 1.03, 4) != (), "until that is forgotten"


def test_looks_that_find_nothing_go_deeper_and_then_begin_anew() -> None:
    """Also when what they have seen has been forgotten, as where there is time for few looks."""
    choice, judge = NativeExitChoice(OWN), objective()
    seen: list[int] = []
    for now in (0, 100, 200, 300, 400, 500, 600):
        [layer] = choice.worth_a_look(judge, now, 1.03, 1)
        seen.append(layer)
        shown(choice, layer, 0, 4, now)
    deepest = seen.index(max(seen))
    assert seen[: deepest + 1] == sorted(set(seen[: deepest + 1]))
    assert deepest >= 2
    assert seen[deepest + 1] == seen[0], "then anew"


def test_the_first_layer_is_looked_at_beside() -> None:
    """Where a text repeats a token it may be right where the next ones are wrong."""
    choice, judge = NativeExitChoice(OWN), objective()
    shown(choice, 20, 12, 0)
    shown(choice, 6, 0, 12)
    layers = choice.worth_a_look(judge, 0, 1.03, 4)
    assert layers[0] == 1
    assert len(layers) == 4
    assert all(layer > 6 for layer in layers[1:])
    assert 1 not in choice.worth_a_look(judge, 0, 1.03, 1), "not in the place of all others"
    assert 1 not in choice.worth_a_look(judge, 0, 100.0, 4), "not where it could not pay"
    shown(choice, 1, 0, 4)
    assert 1 not in choice.worth_a_look(judge, 0, 1.03, 4), "it is known"
    shown(choice, 20, 12, 0, now=20)
    shown(choice, 6, 0, 12, now=20)
    assert choice.worth_a_look(judge, 20, 1.03, 4)[0] == 1, "that is forgotten"
    shown(choice, 1, 12, 0, now=20)
    best = choice.best(judge, 20)
    assert best is not None
    assert best.layer == 1


def test_a_surprise_is_told() -> None:
    choice = NativeExitChoice(OWN)
    assert not choice.learn(6, [True] * 40, [0.9] * 40, 0)
    assert not choice.learn(6, [True, True, False], [0.9, 0.9, 0.2], 1, 17)
    assert not choice.learn(6, [False], [0.2], 2, 1)
    assert choice.learn(6, [False], [0.2], 3, 1)
    other = NativeExitChoice(OWN)
    other.learn(6, [True] * 40, [0.9] * 40, 0)
    assert other.learn(6, [False], [0.2], 1, 17), "most of it for nothing"


def test_a_surprise_leaves_less_of_what_others_have_shown() -> None:
    choice, judge = NativeExitChoice(OWN), objective()
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
    choice, judge = NativeExitChoice([(4, 0.2), (9, 0.3)]), objective()
    assert choice.worth_a_look(judge, 0, 1.03, 4) == (4, 9)
    shown(choice, 4, 3, 1)
    shown(choice, 9, 4, 0)
    best = choice.best(judge, 0)
    assert best is not None
    assert best.layer in (4, 9)
    dear = NativeExitChoice([(4, 3.0), (9, 3.0)])
    shown(dear, 4, 3, 1)
    shown(dear, 9, 4, 0)
    worse = dear.best(judge, 0)
    assert worse is not None
    assert worse.value < best.value
