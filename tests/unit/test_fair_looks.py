"""Looks are shared out fairly: among kinds of exit layers, and among sequences that step together."""

from __future__ import annotations

from collections import Counter

import pytest

from specee.policies import (
    ExitLayer,
    Latency,
    ModelView,
    Observation,
    Outcome,
    Round,
    SequenceView,
    Shadow,
    ShadowTokens,
    Speculate,
    Times,
    make_policy,
)

LAYERS = 32
TABLE = Latency((1, 16), (1e-3, 1.3e-3), (3e-3, 5e-3), 1e-5, 1e-4)


def seen(shadow: Shadow, right: bool) -> list[ShadowTokens]:
    count = shadow.positions or 1
    matches, confidences = (right,) * count, (0.9,) * count
    return [
        ShadowTokens(shadow.sequence, layer, matches, confidences, shadow.adapted) for layer in shadow.layers
    ]


def looked_at(
    name: str, sequences: int, own_right: bool, tokens: int, adapted: int = 0
) -> tuple[Counter[bool], float]:
    """Looks by kind, and the share of time in shadow tokens; adapted layers are never right."""
    policy = make_policy(name)
    policy.begin(ModelView(LAYERS, tuple((layer, 0.3) for layer in range(1, adapted + 1))))
    looks: Counter[bool] = Counter()
    shadow_seconds = seconds = 0.0
    for done in range(tokens):
        views = [
            SequenceView(index, 50 + done, (49 + done if done else 0,) * LAYERS, tokens - done)
            for index in range(sequences)
        ]
        plan = policy.plan(Observation(tuple(views), TABLE))
        assert own_right or not isinstance(plan, Speculate)
        states = sum(len(shadow.layers) * (shadow.positions or 1) for shadow in plan.shadows)
        spent = TABLE.head_seconds(states)
        plain = TABLE.layers_seconds(LAYERS, sequences) + TABLE.head_seconds(sequences)
        shadow_seconds, seconds = shadow_seconds + spent, seconds + spent + plain
        looks.update(shadow.adapted for shadow in plan.shadows)
        shadows = [one for shadow in plan.shadows for one in seen(shadow, own_right and not shadow.adapted)]
        rounds = [Round(view.id, (1,)) for view in views]
        policy.observe(Outcome(tuple(rounds), Times(verify=plain, shadow=spent), tuple(shadows)))
    return looks, shadow_seconds / seconds


@pytest.mark.parametrize("adapted", [1, 8, 31])
def test_both_kinds_of_exit_layers_have_their_turn(adapted: int) -> None:
    looks, _ = looked_at("auto", 1, own_right=True, tokens=400, adapted=adapted)
    assert looks[False] > 0
    assert looks[True] > 0


@pytest.mark.parametrize("sequences", [1, 4, 16])
def test_the_budget_is_that_of_all_sequences_together(sequences: int) -> None:
    looks, share = looked_at("del", sequences, own_right=False, tokens=64)
    assert sequences > 1 or sum(looks.values()) >= 1  # many together soon have too little each for one
    assert share <= 0.02


def test_sources_are_named() -> None:
    assert make_policy("del").begin(ModelView(LAYERS)).sources == (ExitLayer(1),)
