"""DEL as published, beside an implementation of it by hand."""

from __future__ import annotations

import random

import pytest

from specee.policies import (
    Draft,
    ExitLayer,
    Observation,
    Outcome,
    Round,
    Shadow,
    ShadowTokens,
    Speculate,
    Times,
)
from tests.unit.planted_world import LAYERS, MODEL, World, begun, draft_of, layer_of, view


class ByHand:
    """ALGORITHMS.md's DEL for one sequence, kept as a list of all that was ever seen."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, int, bool, float]] = []  # round, layer, match, confidence

    def _weights(self, layer: int, now: int, match: bool) -> list[tuple[float, float]]:
        return [
            (0.95 ** (now - at), sure) for at, one, hit, sure in self.seen if (one, hit) == (layer, match)
        ]

    def choice(self, now: int) -> tuple[int, float]:
        values, thresholds = {}, {}
        for layer in range(1, LAYERS):
            right, wrong = (self._weights(layer, now, match) for match in (True, False))
            hits, misses = sum(weight for weight, _ in right), sum(weight for weight, _ in wrong)
            alpha = hits / (hits + misses)
            tokens = [sum(alpha**i for i in range(d + 1)) for d in range(18)]
            values[layer] = max(tokens[d] / (LAYERS + d * layer) for d in range(18))
            trusted = sum(weight * sure for weight, sure in right) / hits if hits else 1.0
            doubted = sum(weight * sure for weight, sure in wrong) / misses if misses else 0.0
            thresholds[layer] = (trusted + doubted) / 2
        best = max(values, key=lambda layer: values[layer])
        return best, thresholds[best]


def test_published_choices_are_those_of_the_paper() -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    layers = set()
    for run in range(6):
        rng = random.Random(seed + run)
        policy, by_hand = begun("del:faithful=true"), ByHand()
        one = view(fresh=True)
        for now in range(1, 25):
            plan = policy.plan(Observation((one,)))
            assert isinstance(plan, Speculate)
            wanted = 32 if now == 1 else None
            assert plan.shadows == (Shadow(0, tuple(range(1, LAYERS)), wanted),), "all layers, every round"
            if now == 1:
                assert plan.drafts[0].length == 0, "a prompt comes first"
            else:
                layer, threshold = by_hand.choice(now - 1)
                draft = plan.drafts[0]
                assert (draft.source, draft.length) == (ExitLayer(layer), 18)
                assert draft.stop_below == pytest.approx(threshold)
                layers.add(layer)
            skill = rng.random() * LAYERS  # the text changes all the time
            accepted = rng.randint(0, 4)
            shadows = []
            for layer in range(1, LAYERS):
                matches = [rng.random() < layer / (layer + skill) for _ in range(wanted or accepted + 1)]
                sure = [rng.random() for _ in matches]
                by_hand.seen += [(now, layer, *pair) for pair in zip(matches, sure, strict=True)]
                shadows.append(ShadowTokens(0, layer, tuple(matches), tuple(sure)))
            entry = Round(0, (1,) * (accepted + 1), ExitLayer(3), 4, accepted, (0.5,) * 4)
            policy.observe(Outcome((entry,), Times(), tuple(shadows)))
            one = view(length=one.length + accepted + 1)
    assert len(layers) > 3, "layers must change"


def test_published_begins_with_one_token_at_layer_1() -> None:
    policy = begun("del:faithful=true")
    plan = policy.plan(Observation((view(),)))
    assert draft_of(plan) == Draft(0, ExitLayer(1), 1, 0.0)
    assert policy.begin(MODEL).shadow_layers == tuple(range(1, LAYERS + 1))
    assert policy.begin(MODEL).shadow_positions == 32
    assert policy.begin(MODEL).latency is False


def test_published_never_steps_aside() -> None:
    world = World(begun("del:faithful=true"), lambda *_: 0.0)
    world.step()
    assert all(layer_of(world.step()) for _ in range(50))
