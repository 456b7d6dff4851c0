"""Decisions about exit layers in C++: what the plain ones are, to the bit, whatever has been seen."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable

import pytest

from specee import _cpu
from specee.errors import ConfigurationError
from specee.policies import Latency, ModelView, make_policy
from specee.policies.draft_choice import GAIN
from specee.policies.objective import LAYERS, LONGEST, POSITIONS, Objective
from tests.unit.native_exits import NativeExitChoice, exit_drafts
from tests.unit.plain_exit_choice import ExitChoice
from tests.unit.plain_exit_drafts import ExitDrafts

_ROWS = (1, 2, 4, 8, 16)


def some_objectives(rng: random.Random, layers: int) -> list[Objective]:
    """Of a random machine, of one that counts layers alone, and of several sequences."""
    columns = [tuple(sorted(rng.uniform(1e-4, most) for _ in _ROWS)) for most in (4e-4, 3e-3)]
    table = Latency(_ROWS, columns[0], columns[1], rng.uniform(0, 1e-4), rng.uniform(0, 1e-4))
    return [
        Objective(table, layers),
        Objective(Latency((1,), (1.0,), (0.0,)), layers),
        Objective(table, layers, 3),
    ]


def some_heads(rng: random.Random, layers: int) -> list[tuple[int, float]]:
    return [(layer, rng.choice((1.0, 0.2))) for layer in range(1, layers) if rng.random() < 0.8]


def some_drafts(rng: random.Random) -> tuple[list[bool], list[float], int | None]:
    """A round's: right ones, then perhaps a wrong one; and how many there were. Or what a look shows: any."""
    if rng.random() < 0.3:
        rate, count = rng.choice((0.1, 0.9, 1.0)), rng.choice((0, 1, 4, 18, 60))
        matches = [rng.random() < rate for _ in range(count)]
        return matches, [rng.random() for _ in matches], None
    drafted = rng.randint(0, 9)
    right = rng.choice((rng.randint(0, drafted), drafted))
    matches = [True] * right + [False] * (right < drafted)
    return matches, [rng.random() for _ in matches], rng.choice((None, drafted))


def later(rng: random.Random, now: float) -> float:
    """Mostly a round or two, at times so many that all is forgotten."""
    return now + (rng.choice((0, 1, 1, 1.5, 2, 7)) if rng.random() < 0.95 else 80)


@pytest.fixture
def rng() -> random.Random:
    seed = random.randrange(2**32)
    print("seed", seed)
    return random.Random(seed)


def test_choices_are_the_plain_ones(rng: random.Random) -> None:
    plans, looks, surprises = set(), set(), 0
    for _ in range(60):
        layers = rng.choice((3, 12, 30))
        heads = some_heads(rng, layers) or [(1, 1.0)]
        plain, native, judges = ExitChoice(heads), NativeExitChoice(heads), some_objectives(rng, layers)
        now = 0.0
        for _ in range(200):
            now, kind, judge = later(rng, now), rng.random(), judges[int(rng.random() * 3.3) % 3]
            if kind < 0.5:
                layer, (matches, confidences, drafted) = rng.choice(heads)[0], some_drafts(rng)
                surprise = plain.learn(layer, matches, confidences, now, drafted)
                assert native.learn(layer, matches, confidences, now, drafted) is surprise
                surprises += surprise
            elif kind < 0.75:
                plan = plain.best(judge, now)
                assert native.best(judge, now) == plan
                plans.add(plan)
            else:
                least, most = rng.uniform(0.9, 2), rng.randint(1, 5)
                found = plain.worth_a_look(judge, now, least, most)
                assert native.worth_a_look(judge, now, least, most) == found
                looks.add(found)
            assert [native.known_of(layer, now) for layer, _ in heads] == [
                plain.known_of(layer, now) for layer, _ in heads
            ]
    assert len({plan.layer for plan in plans if plan is not None}) > 10, "else little was compared"
    assert any(plan is not None and plan.stop_below > 0 for plan in plans)
    assert len({len(found) for found in looks}) > 4
    assert surprises > 20


def test_drafts_and_looks_are_the_plain_ones(rng: random.Random) -> None:
    drafted: set[object] = set()
    looked: set[object] = set()
    for _ in range(60):
        layers = rng.choice((3, 12, 30))
        kinds = {kind: some_heads(rng, layers) or [(1, 1.0)] for kind in (False, True)}
        if rng.random() < 0.5:
            del kinds[rng.random() < 0.5]
        plain, native = ExitDrafts(kinds), _cpu.ExitDrafts([*kinds.items()], POSITIONS, GAIN)
        judge, counting, _ = some_objectives(rng, layers)
        judge = rng.choice((judge, counting))
        seconds, now, length = some_objectives(rng, layers)[rng.choice((0, 2))], 0.0, rng.randint(1, 50)
        for _ in range(200):
            beside = rng.choice((1.0, 1.3))
            plan = plain.draft(judge, now, beside)
            assert native.draft(judge.native, now, beside) == plan
            text = length, rng.randint(2, 4000), rng.random() < 0.1
            value = 0.0 if plan is None else plan[4]
            look = plain.look(judge, seconds, *text, now, value)
            assert native.look(judge.native, seconds.native, *text, now, value) == look
            tokens, adapted = rng.randint(1, 6), rng.choice([*kinds])
            now, length = later(rng, now), length + tokens
            seen = (adapted, rng.choice(kinds[adapted])[0], *some_drafts(rng))
            what = rng.choice(("learn", "see"))
            result = getattr(plain, what)(*seen[:4], now, seen[4])
            assert getattr(native, what)(*seen[:4], now, seen[4]) is result
            spent = (
                rng.uniform(0.5, 2) * seconds.plain,
                rng.choice((0.0, 1e-4)),
                rng.random() < 0.5,
            )
            for side in (plain, native):
                if look is not None:
                    side.saw(tokens)
                side.note(*spent)
            assert (native.look_at, native.near) == (plain.look_at, plain.near)
            drafted.add(plan and plan[:2])
            looked.add(look and (look[0], len(look[1])))
    assert len(drafted) > 20, "else little was compared"
    assert {(kind, count) for kind in (False, True) for count in (1, LAYERS)} <= looked


def test_many_drafts_may_be_learnt_from_at_once() -> None:
    """As where all positions of a prompt are looked at."""
    plain, native = ExitChoice([(4, 1.0)]), NativeExitChoice([(4, 1.0)])
    matches, confidences = [True, False] * 500, [0.25, 0.75] * 500
    for now in (3.0, 4.0):
        for choice in (plain, native):
            choice.learn(4, matches, confidences, now)
        assert native.known_of(4, 5.0) == plain.known_of(4, 5.0) > 900
    for choice in (plain, native):
        choice.learn(4, [], [], 4.0)
    assert native.known_of(4, 4.0) == plain.known_of(4, 4.0) == pytest.approx(40), "more are forgotten"


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (lambda: _cpu.ExitChoice([(2, 1.0), (2, 1.0)]), "ascend from 1, and layer 2 comes after 2"),
        (lambda: _cpu.ExitChoice([(0, 1.0)]), "ascend from 1, and layer 0 is the first"),
        (
            lambda: _cpu.ExitChoice([(2, 1.0)]).learn(3, [True], [0.5], 0),
            "layer 3 is none of the 1 .* 2 to 2",
        ),
        (lambda: _cpu.ExitChoice([(2, 1.0)]).learn(2, [True], [0.5], float("nan")), "round nan is no time"),
        (lambda: _cpu.ExitChoice([(2, 1.0)]).learn(2, [True], ["x"], 0), "draft 0 has 'x': a confidence is"),
        (lambda: _cpu.ExitDrafts([(True, []), (True, [])], 4, 1.03), "adapted heads are given twice"),
        (lambda: _cpu.ExitDrafts([], 0, 1.03), "at one position or more, .* got 0"),
        (lambda: _cpu.ExitDrafts([], 4, 0.5), "promise 1 or more; got 4 and 0.5"),
        (lambda: _cpu.ExitChoice([(2, 1.0)]).learn(2, [True], [], 0), "1 drafts were right or wrong, and 0"),
        (lambda: exit_drafts(2).learn(True, 2, [True], [0.5], 0, 1), "no exit layer drafts with an adapted"),
        (
            lambda: exit_drafts().see(False, 2, [True], [0.5], 0, 1),
            "no exit layer drafts with the model's own",
        ),
        (lambda: _cpu.RoundCosts(30, 1, [1.0] * 3, [1.0] * (LONGEST + 2), 0, [0, 1]), "3 rows of layers"),
        (
            lambda: _cpu.RoundCosts(30, 0, [1.0] * (LONGEST + 2), [1.0] * (LONGEST + 2), 0, [0, 1]),
            "0 sequences",
        ),
        (lambda: _cpu.RoundCosts(30, 1, [1.0] * (LONGEST + 2), [1.0] * (LONGEST + 2), 0, [0]), "1 looks"),
    ],
)
def test_what_cannot_be_is_refused(wrong: Callable[[], object], told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        wrong()


def test_costs_are_not_none() -> None:
    for refused in (
        lambda: _cpu.ExitChoice([(2, 1.0)]).best(None, 0),  # type: ignore[arg-type]
        lambda: _cpu.ExitChoice([(2, 1.0)]).worth_a_look(None, 0, 1.0, 4),  # type: ignore[arg-type]
        lambda: exit_drafts(2).draft(None, 0, 1.0),  # type: ignore[arg-type]
        lambda: exit_drafts(2).look(None, None, 40, 40, False, 0, 1.0),  # type: ignore[arg-type]
    ):
        with pytest.raises(TypeError, match="incompatible function arguments"):
            refused()


@pytest.mark.parametrize("name", ["del", "auto", "del:measured=false"])
def test_a_build_without_native_code_is_told_of(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "specee._cpu", None)
    with pytest.raises(ConfigurationError, match=r"specee\._cpu, which cannot be imported .*reinstall"):
        make_policy(name).begin(ModelView(30))
