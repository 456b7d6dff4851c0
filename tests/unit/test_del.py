"""The policies that choose by a measured objective, on texts in which it is known what is right."""

from __future__ import annotations

from collections.abc import Sequence
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
from tests.unit.planted_world import (
    LATENCY,
    LAYERS,
    MODEL,
    Rates,
    World,
    begun,
    draft_of,
    exit_of,
    layer_of,
    view,
)

POLICIES = ["del", "del:faithful=true", "del:measured=false", "del:sampled=false", "auto"]


def step_at(k: int, adapted_k: int = LAYERS) -> Rates:
    """Layers from ``k`` on are right, others wrong."""
    return lambda layer, adapted: 0.97 if layer >= (adapted_k if adapted else k) else 0.03


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


def test_resting_goes_on_where_there_is_nothing_to_copy_and_ends_with_a_copy() -> None:
    world = World(begun("auto"), lambda *_: 0.0)
    world.views[0] = view(remaining=200, fresh=True)
    world.steps(120)
    plans = world.plans[60:]
    assert sum(a is b for a, b in pairwise(plans)) > 40
    assert all(draft is not None and isinstance(draft.source, NgramLookup) for draft in map(draft_of, plans))
    while (remaining := world.views[0].remaining) > 1:  # also at the end of a text nothing outgrows it
        draft = draft_of(world.step())
        assert draft is None or draft.length < remaining
    world = World(begun("auto"), lambda *_: 0.0)
    before = draft_of(world.steps(60))
    world.copies = world.copied = 1.0
    assert world.step() == world.plans[-2]
    world.copies = 0.0
    after = draft_of(world.step())
    assert before is not None
    assert after is not None
    assert after.length > before.length, "what was accepted is known at once"


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
    some = (1, *range(2, LAYERS, 2), LAYERS)  # no more than sixteen candidates
    assert make_policy("del").begin(MODEL) == Needs((ExitLayer(1),), some, 4, latency=True)
    every = tuple(range(1, LAYERS + 1))
    needs = make_policy("del:sampled=false").begin(MODEL)
    assert needs == Needs((ExitLayer(1),), every, 18, latency=True)
    assert make_policy("del").begin(ModelView(16)).shadow_layers == tuple(range(1, 17))
    assert len(make_policy("del").begin(ModelView(80)).shadow_layers) <= 17
    model = ModelView(LAYERS, ((4, 0.2), (8, 0.2)))
    needs = make_policy("del:adapted=true").begin(model)
    assert needs == Needs((ExitLayer(4, adapted=True),), (4, 8, LAYERS), 4, latency=True)
    needs = make_policy("auto").begin(MODEL)
    assert set(needs.sources) == {ExitLayer(1), NgramLookup()}
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
