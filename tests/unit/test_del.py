"""``del`` and ``auto``: plans of a planted model, as published and by measured time; no model in sight."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from itertools import pairwise

import pytest

from specee.errors import ConfigurationError
from specee.policies import (
    Draft,
    ExitLayer,
    Latency,
    ModelView,
    Needs,
    NextToken,
    NgramLookup,
    Observation,
    Outcome,
    Plan,
    Policy,
    Round,
    SequenceView,
    Shadow,
    ShadowTokens,
    Speculate,
    Times,
    make_policy,
)

LAYERS = 30
MODEL = ModelView(LAYERS)
# A layer takes 1, the head 2; rows are nearly free.
LATENCY = Latency((1, 16), (1e-4, 1.3e-4), (2e-4, 3e-4), 1e-6, 1e-5, 1e-6)
POLICIES = ["del", "del:faithful=true", "del:measured=false", "del:sampled=false", "auto"]
Rates = Callable[[int, bool], float]


def view(index: int = 0, length: int = 40, remaining: int = 5000, *, fresh: bool = False) -> SequenceView:
    first = 0 if fresh else length - 1
    return SequenceView(index, length, (first,) * LAYERS, remaining)


def begun(policy: str, model: ModelView = MODEL) -> Policy:
    made = make_policy(policy)
    made.begin(model)
    return made


def step_at(k: int, adapted_k: int = LAYERS) -> Rates:
    """Layers from ``k`` on are right, others wrong."""
    return lambda layer, adapted: 0.97 if layer >= (adapted_k if adapted else k) else 0.03


class World:
    """What comes of plans: drafts and shadows are right as often as ``rates`` say; ``copies`` as often."""

    def __init__(self, policy: Policy, rates: Rates, seed: int = 0, count: int = 1, copies: float = 0.0):
        self.policy, self.rates, self.copies = policy, rates, copies
        self.rng = random.Random(seed)
        self.views = {index: view(index, fresh=True) for index in range(count)}
        self.plans: list[Plan] = []
        self.latency = LATENCY
        self.tokens = 0

    def step(self) -> Plan:
        plan = self.policy.plan(Observation(tuple(self.views.values()), self.latency))
        self.plans.append(plan)
        named = plan.drafts if isinstance(plan, Speculate) else [None] * len(self.views)
        rounds = [self._round(one, draft) for one, draft in zip(self.views.values(), named, strict=True)]
        shadows = [seen for shadow in plan.shadows for seen in self._seen(shadow, rounds)]
        for entry in rounds:
            old = self.views[entry.sequence]
            size = len(entry.tokens)
            self.views[entry.sequence] = view(entry.sequence, old.length + size, old.remaining - size)
            self.tokens += size
        states = sum(len(seen.matches) for seen in shadows)
        shadow = 2e-4 + states * 1e-5 if states else 0.0
        self.policy.observe(Outcome(tuple(rounds), Times(0.0, 0.0, 3e-3, 2e-4, shadow), tuple(shadows)))
        return plan

    def steps(self, count: int) -> Plan:
        for _ in range(count):
            plan = self.step()
        return plan

    def _round(self, one: SequenceView, draft: Draft | None) -> Round:
        if draft is not None and isinstance(draft.source, NgramLookup) and self.rng.random() > self.copies:
            draft = draft.otherwise
        if draft is None or draft.length == 0:
            return Round(one.id, (1,))
        source, accepted = draft.source, 0
        rate = self.rates(source.layer, source.adapted) if isinstance(source, ExitLayer) else 0.97
        while accepted < draft.length and self.rng.random() < rate:
            accepted += 1
        confidences = (0.9,) * accepted + (0.3,) * (accepted < draft.length)
        confidences += (0.5,) * (draft.length - len(confidences))
        return Round(one.id, (1,) * (accepted + 1), source, draft.length, accepted, confidences)

    def _seen(self, shadow: Shadow, rounds: Sequence[Round]) -> list[ShadowTokens]:
        emitted = next(len(entry.tokens) for entry in rounds if entry.sequence == shadow.sequence)
        found = []
        for layer in shadow.layers:
            rate = self.rates(layer, shadow.adapted)
            matches = tuple([self.rng.random() < rate for _ in range(shadow.positions or emitted)])
            confidences = tuple([0.9 if match else 0.3 for match in matches])
            found.append(ShadowTokens(shadow.sequence, layer, matches, confidences, shadow.adapted))
        return found


def draft_of(plan: Plan, sequence: int = 0) -> Draft | None:
    if isinstance(plan, NextToken):
        return None
    draft = next(draft for draft in plan.drafts if draft.sequence == sequence)
    return draft if draft.length else None


def layer_of(plan: Plan, sequence: int = 0) -> int:
    """0 where no exit layer drafts; one that drafts where there is nothing to copy counts."""
    source = exit_of(plan, sequence)
    return 0 if source is None else source.layer


def exit_of(plan: Plan, sequence: int = 0) -> ExitLayer | None:
    draft = draft_of(plan, sequence)
    while draft is not None and not isinstance(draft.source, ExitLayer):
        draft = draft.otherwise
    return draft.source if draft is not None and isinstance(draft.source, ExitLayer) else None


# As published


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


# By measured time


@pytest.mark.parametrize("policy", ["del", "auto"])
def test_where_nothing_pays_nothing_is_drafted_and_little_is_looked_at(policy: str) -> None:
    world = World(begun(policy), lambda *_: 0.0)
    for _ in range(300):
        world.step()
    assert all(layer_of(plan) == 0 for plan in world.plans)
    looks = [index for index, plan in enumerate(world.plans) if plan.shadows]
    assert len(looks) < 15
    assert not [index for index in looks if index > 150][5:], "looks that find nothing become rare"


def test_luck_is_soon_seen_through() -> None:
    world = World(begun("del"), lambda *_: 0.03)
    world.steps(1000)
    assert sum(layer_of(plan) > 0 for plan in world.plans) < 30


def test_resting_is_the_same_plan() -> None:
    world = World(begun("del"), lambda *_: 0.0)
    world.steps(100)
    plans = [world.step() for _ in range(100)]
    same = sum(a is b for a, b in pairwise(plans))
    assert same > 85
    assert isinstance(plans[-1], NextToken)


@pytest.mark.parametrize("policy", ["del", "del:sampled=false", "del:measured=false", "auto"])
@pytest.mark.parametrize("k", [3, 6, 12, 18])
def test_drafts_begin_where_layers_are_right(policy: str, k: int) -> None:
    world = World(begun(policy), step_at(k), seed=k)
    world.steps(60)
    found = [layer_of(plan) for plan in world.plans[40:]]
    assert sum(k <= layer <= k + 4 for layer in found) > 15, found


@pytest.mark.parametrize("policy", ["del", "del:sampled=false", "auto"])
@pytest.mark.parametrize(("before", "after"), [(6, 18), (18, 6)])
def test_layers_change_with_the_text(policy: str, before: int, after: int) -> None:
    world = World(begun(policy), step_at(before), seed=1)
    world.views[0] = view(remaining=2000, fresh=True)
    world.steps(60)
    assert abs(layer_of(world.plans[-1]) - before) <= 4
    world.rates = step_at(after)
    world.steps(60)
    found = [layer_of(plan) for plan in world.plans[-10:]]
    assert sum(after <= layer <= after + 4 for layer in found) > 6, found


@pytest.mark.parametrize("policy", POLICIES)
def test_no_more_than_may_still_come(policy: str) -> None:
    world = World(begun(policy), step_at(4), copies=0.5)
    world.steps(40)
    for remaining in (1, 2, 3, 5):
        world.views[0] = view(length=500 - remaining, remaining=remaining)
        plan = world.policy.plan(Observation((world.views[0],), LATENCY))
        draft = draft_of(plan)
        while draft is not None:
            assert draft.length < remaining
            draft = draft.otherwise
        assert remaining > 1 or draft_of(plan) is None
        world.policy.observe(Outcome((Round(0, (1,)),), Times(verify=1e-3)))


@pytest.mark.parametrize("policy", POLICIES)
def test_sequences_have_choices_of_their_own(policy: str) -> None:
    made = begun(policy)

    class Two(World):
        def _seen(self, shadow: Shadow, rounds: Sequence[Round]) -> list[ShadowTokens]:
            self.rates = step_at(5 if shadow.sequence == 0 else 16)
            return super()._seen(shadow, rounds)

        def _round(self, one: SequenceView, draft: Draft | None) -> Round:
            self.rates = step_at(5 if one.id == 0 else 16)
            return super()._round(one, draft)

    world = Two(made, step_at(5), count=2)
    world.steps(60)
    first, second = ([layer_of(plan, index) for plan in world.plans[-10:]] for index in (0, 1))
    assert sum(5 <= layer <= 9 for layer in first) > 6, first
    assert sum(16 <= layer <= 20 for layer in second) > 6, second
    del world.views[0]  # it is over
    world.steps(10)
    assert all(len(plan.drafts) == 1 for plan in world.plans[-10:] if isinstance(plan, Speculate))
    assert 16 <= max(layer_of(plan, 1) for plan in world.plans[-10:]) <= 20


def test_copies_come_first_and_exits_otherwise() -> None:
    world = World(begun("auto"), step_at(6), copies=0.9)
    world.steps(60)
    copies = [draft for plan in world.plans[20:] if (draft := draft_of(plan)) is not None]
    copies = [draft for draft in copies if isinstance(draft.source, NgramLookup)]
    assert len(copies) > 30
    with_exits = [draft for draft in copies if draft.otherwise is not None]
    assert with_exits
    assert all(isinstance(draft.otherwise.source, ExitLayer) for draft in with_exits if draft.otherwise)
    assert not isinstance(draft_of(World(begun("del"), step_at(6), copies=0.9).steps(60)), NgramLookup)


def test_exits_of_the_speculator_where_they_are_better() -> None:
    model = ModelView(LAYERS, tuple([(layer, 0.2) for layer in (4, 8)]))
    for policy, kinds in (("auto", {True}), ("del:adapted=true", {True}), ("del", {False})):
        world = World(begun(policy, model), step_at(20, adapted_k=4))
        world.steps(60)
        used = {source.adapted for plan in world.plans[-10:] if (source := exit_of(plan)) is not None}
        assert used == kinds, policy
    world = World(begun("auto", model), step_at(6, adapted_k=LAYERS))
    world.steps(80)
    source = exit_of(world.plans[-1])
    assert source is not None
    assert not source.adapted


@pytest.mark.parametrize("policy", POLICIES)
def test_the_same_history_gives_the_same_plans(policy: str) -> None:
    made = begun(policy)

    def plans(one: Policy, seed: int) -> list[Plan]:
        world = World(one, step_at(7), seed=seed, count=2, copies=0.3)
        world.steps(50)
        return world.plans

    first = plans(made, 3)
    assert plans(begun(policy), 3) == first
    made.begin(MODEL)
    assert plans(made, 3) == first, "begin() forgets"
    assert plans(begun(policy), 4) != first, "another history, other plans"


def test_other_prices_other_plans() -> None:
    """A head that outweighs all layers: no exit pays, at whatever layer."""
    world = World(begun("del"), step_at(6))
    world.steps(40)
    assert layer_of(world.plans[-1])
    world.latency = Latency((1, 16), (1e-5, 1e-4), (1e-2, 1e-1))
    world.steps(2)
    assert layer_of(world.plans[-1]) == 0


def test_what_policies_need() -> None:
    some = (*range(2, LAYERS, 2), LAYERS)  # no more than sixteen candidates
    assert make_policy("del").begin(MODEL) == Needs((ExitLayer(2),), some, 4, latency=True)
    every = tuple(range(1, LAYERS + 1))
    needs = make_policy("del:sampled=false").begin(MODEL)
    assert needs == Needs((ExitLayer(1),), every, 18, latency=True)
    assert make_policy("del").begin(ModelView(16)).shadow_layers == tuple(range(1, 17))
    assert len(make_policy("del").begin(ModelView(80)).shadow_layers) <= 17
    model = ModelView(LAYERS, ((4, 0.2), (8, 0.2)))
    needs = make_policy("del:adapted=true").begin(model)
    assert needs == Needs((ExitLayer(4, adapted=True),), (4, 8, LAYERS), 4, latency=True)
    needs = make_policy("auto").begin(MODEL)
    assert set(needs.sources) == {ExitLayer(2), NgramLookup()}
    assert (needs.shadow_layers, needs.latency) == (some, True)


@pytest.mark.parametrize("policy", ["del", "auto", "del:sampled=false"])
def test_no_latency_table(policy: str) -> None:
    with pytest.raises(ConfigurationError, match="latency table"):
        begun(policy).plan(Observation((view(),)))


@pytest.mark.parametrize(
    "policy",
    [
        "del:faithful=true,measured=false",
        "del:faithful=true,sampled=false",
        "del:faithful=true,adapted=true",
        "del:faithful=1",
        "del:sampled=2",
        "auto:measured=false",
    ],
)
def test_wrong_settings_are_refused(policy: str) -> None:
    with pytest.raises(ConfigurationError, match=policy.partition(":")[0]):
        make_policy(policy)


def test_adapted_exits_need_a_speculator() -> None:
    with pytest.raises(ConfigurationError, match="speculator"):
        begun("del:adapted=true")


@pytest.mark.parametrize("policy", POLICIES)
def test_a_model_of_one_layer_is_decoded_plainly(policy: str) -> None:
    made = make_policy(policy)
    needs = made.begin(ModelView(1))
    assert needs.shadow_layers == ()
    assert not any(isinstance(source, ExitLayer) for source in needs.sources)
    for first in (0, 39):
        one = SequenceView(0, 40, (first,), 50)
        plan = made.plan(Observation((one,), LATENCY))
        draft = draft_of(plan)
        assert draft is None or isinstance(draft.source, NgramLookup)
        assert plan.shadows == ()
        made.observe(Outcome((Round(0, (1,)),), Times(verify=1e-3)))
