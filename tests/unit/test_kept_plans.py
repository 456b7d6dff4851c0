"""How long plans of ``del`` and ``auto`` are good: as long as their drafts have earned, and no longer."""

from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise

import pytest

from specee.policies import (
    DrafterBlock,
    ExitLayer,
    Latency,
    ModelView,
    NextToken,
    NgramLookup,
    Observation,
    Outcome,
    Plan,
    PredictedExit,
    Round,
    ShadowTokens,
    Speculate,
    make_policy,
)
from specee.policies.block_choice import BlockChoice
from specee.policies.chain_cost import ChainCost
from specee.policies.draft_choice import POSITIONS, DraftChoice
from specee.policies.objective import Objective
from specee.policies.plans import ExitView
from specee.policies.rounds import ANY_TURNS, ASKING_TURNS, FEW_TURNS, STEADY_TURNS
from tests.unit.native_exits import exit_drafts
from tests.unit.planted_world import LATENCY, LAYERS, World, begun, draft_of, view
from tests.unit.test_block_choice import Blocks

# More than four rows take a step up: three drafts are best where most are right.
STEPPED = Latency((1, 4, 5, 20), (1e-4, 1.1e-4, 5e-4, 2e-3), (2e-4, 2.2e-4, 1e-3, 4e-3), 1e-6, 1e-5)


def few_drafts(world: World) -> World:
    """The same where rows are dear, so that rounds are short."""
    world.latency = STEPPED
    return world


def right(from_layer: int, rate: float = 0.97):  # type: ignore[no-untyped-def]
    return lambda layer, _: rate if layer >= from_layer else 0.1


def turns(world: World, latest: int = 20) -> list[int]:
    """Of the latest plans, those aside that have something looked at, which are for one turn."""
    found = []
    for plan in world.plans[-latest:]:
        assert isinstance(plan, (NextToken, Speculate))
        if plan.shadows:
            assert plan.turns == 1
        else:
            found.append(plan.turns)
    return found


def test_a_source_earns_its_turns_and_loses_them() -> None:
    world = few_drafts(World(begun("del"), right(8, 1.0)))
    assert world.step().turns == 1, "a prompt"  # type: ignore[union-attr]
    world.steps(3)
    assert max(turns(world)) < FEW_TURNS
    world.steps(60)
    assert set(turns(world)) == {FEW_TURNS}
    assert draft_of(world.plans[-1]) is not None
    world.rates = lambda *_: 0.0
    world.steps(FEW_TURNS + 4)
    while draft_of(world.plans[-1]) is not None:
        world.step()
        assert len(world.plans) < 100, "nothing was learnt from failures"
    failing = [plan.turns for plan in world.plans if draft_of(plan) is not None][-3:]  # type: ignore[union-attr]
    assert min(failing) < FEW_TURNS


def test_a_new_source_is_on_trial() -> None:
    policy = begun("auto", ModelView(LAYERS, drafter=2.0))
    world = Blocks(policy, right(4, 1.0))
    for share in (0.97, 0.0) * 3:
        world.right, world.rates = share, right(4, 1.0 - share)
        world.steps(80)
    seen: set[bool] = set()
    for before, after in pairwise([(makes(plan), plan) for plan in world.plans]):
        if after[0] is not None and after[0] != before[0]:
            assert after[1].turns == 1  # type: ignore[union-attr]
            seen.add(after[0])
    assert seen == {True, False}, "it went both ways"
    assert max(turns(world, 480)) >= FEW_TURNS


def makes(plan: Plan) -> bool | None:
    """Whether it is an exit layer that drafts, copies aside, or the block; None if nothing does."""
    draft = draft_of(plan)
    while draft is not None and isinstance(draft.source, NgramLookup):
        draft = draft.otherwise
    return None if draft is None else isinstance(draft.source, ExitLayer)


def test_another_layer_is_on_trial() -> None:
    world = few_drafts(World(begun("del"), right(12, 1.0)))
    world.steps(80)
    world.rates = right(6, 1.0)
    world.steps(80)
    changes = 0
    for before, after in pairwise(world.plans[40:]):
        drafts = draft_of(before), draft_of(after)
        if None not in drafts and drafts[0].source != drafts[1].source:  # type: ignore[union-attr]
            assert after.turns == 1  # type: ignore[union-attr]
            changes += 1
    assert changes
    assert turns(world, 1) == [FEW_TURNS]


def test_every_round_decides_where_all_of_them_are_looked_at() -> None:
    for policy in ("del:faithful=true", "del:sampled=false"):
        world = World(begun(policy), right(8))
        world.steps(60)
        assert [plan.turns for plan in world.plans[-60:]] == [1] * 60  # type: ignore[union-attr]


def test_in_a_batch_those_that_rest_do_not_hurry_the_others() -> None:
    world = few_drafts(World(begun("del"), right(8, 1.0), count=2))
    single = world._round

    def one_fails(one, draft):  # type: ignore[no-untyped-def]
        made = single(one, draft)
        return made if one.id == 0 or not made.drafted else made._replace(tokens=(1,), accepted=0)

    seen = world._seen
    world._round = one_fails  # type: ignore[method-assign]
    world._seen = lambda shadow, rounds: [  # type: ignore[method-assign]
        one if one.sequence == 0 else one._replace(matches=(False,) * len(one.matches))
        for one in seen(shadow, rounds)
    ]
    world.steps(150)
    drafting = [plan for plan in world.plans[-60:] if draft_of(plan, 0) and not draft_of(plan, 1)]
    assert len(drafting) > 40
    assert Counter(plan.turns for plan in drafting).most_common(1)[0][0] == FEW_TURNS  # type: ignore[union-attr]


def test_a_plan_is_kept_for_its_turns_and_made_anew_for_a_reason() -> None:
    def kept() -> World:
        world = few_drafts(World(begun("auto"), right(8, 1.0)))
        world.steps(80)
        while True:  # to the first round of a plan without a look
            before = world.plans[-1]
            plan = world.step()
            if plan is not before and not plan.shadows and draft_of(plan) is not None:
                assert turns(world, 1) == [FEW_TURNS]
                return world

    world = kept()
    first = world.plans[-1]
    for _ in range(FEW_TURNS - 1):
        assert world.step() is first
    assert world.step() is not first

    world = kept()
    world.copies = 1.0  # copies come before all else
    first = world.plans[-1]
    assert isinstance(first, Speculate)
    assert first.drafts[0].otherwise is not None
    assert world.step() is first
    assert world.step() is not first, "a copy is something to learn from"

    world = kept()
    world.latency = STEPPED._replace(step=STEPPED.step * 2)
    assert world.step() is not world.plans[-2]

    world = kept()
    [one] = world.views.values()
    first = world.plans[-1]
    assert isinstance(first, Speculate)
    world.views = {0: one._replace(remaining=max(draft.most for draft in first.drafts))}
    assert world.step() is not first, "no room for what it drafts"

    world = kept()
    world.views = {1: view(1)}
    assert world.step() is not world.plans[-2], "another text"


def test_a_plan_that_fails_as_none_did_before_is_dropped() -> None:
    for rate, most in ((0.0, 1 + 2), (1.0, FEW_TURNS)):  # one failure may be chance
        world = few_drafts(World(begun("del"), right(8, 1.0)))
        world.steps(80)
        while world.plans[-1] is world.plans[-2] or world.plans[-1].shadows:
            world.step()
        first, plan = world.plans[-1], draft_of(world.plans[-1])
        assert plan is not None
        assert (plan.length, turns(world, 1)) == (3, [FEW_TURNS])
        world.rates = right(8, rate)
        rounds = 1
        while world.step() is first:
            rounds += 1
        assert rounds == most
        if rate == 0.0:
            assert world.plans[-1].shadows, "something else may be right"
            assert world.plans[-1].turns == 1, "and soon"  # type: ignore[union-attr]


def test_long_drafts_that_fail_are_not_waited_for() -> None:
    world = World(begun("del"), right(8, 1.0))
    world.steps(80)
    plan = draft_of(world.plans[-1])
    assert plan is not None
    assert plan.length > 8
    world.rates = lambda *_: 0.0
    world.step()
    after = draft_of(world.step())
    assert after is not None
    assert after.length < plan.length
    assert after.stop_below > 0, "an unsure one is the last"
    assert world.plans[-1].shadows, "something else may be right"


def test_long_rounds_count_for_several() -> None:
    """So that shallower layers are looked at as often, in tokens, as where drafts are short."""
    short = few_drafts(World(begun("del"), right(8, 1.0)))
    for world, most in ((World(begun("del"), right(8, 1.0)), 1), (short, FEW_TURNS)):
        world.steps(120)
        plans = [plan for plan in world.plans[-20:] if not plan.shadows]
        lengths = [draft.length for draft in map(draft_of, plans) if draft is not None]
        assert len(lengths) == len(plans) > 8
        assert turns(world) == [max(1, min(FEW_TURNS, FEW_TURNS * 4 // (length + 1))) for length in lengths]
        assert Counter(turns(world)).most_common(1)[0][0] == most


def test_what_is_learnt_is_the_same_with_turns_together() -> None:
    """Nearly: decisions come later, and are as good."""
    given = []
    for together in (1, FEW_TURNS):
        world = few_drafts(World(begun("del"), right(8, 0.8)))
        rounds = 0
        while rounds < 300:
            before = len(world.times)
            world.step(together)
            rounds += len(world.times) - before
        given.append(world.tokens / rounds)
        assert max(turns(world, len(world.plans))) == FEW_TURNS
    assert given[1] > 0.85 * given[0]


def test_resting_plans_are_good_until_a_look_is_due() -> None:
    world = World(begun("del"), lambda *_: 0.0)
    world.steps(300)
    assert FEW_TURNS < max(turns(world, 60)) <= ANY_TURNS


@pytest.mark.parametrize("policy", ["del", "auto"])
@pytest.mark.parametrize("count", [1, 3])
def test_every_round_is_counted_once(policy: str, count: int) -> None:
    """Those of rest are counted when it is over."""
    seed = random.randrange(2**32)
    print("seed", seed)
    world = World(begun(policy), right(20, 0.9), seed=seed, count=count)
    world.views = {index: view(index, remaining=10**6, fresh=True) for index in range(count)}
    observe, passed = world.policy.observe, dict.fromkeys(range(count), 0.0)

    def counted(outcome: Outcome) -> None:
        observe(outcome)
        for entry in outcome.rounds:
            passed[entry.sequence] += max(1.0, len(entry.tokens) / 4)

    world.policy.observe = counted  # type: ignore[method-assign]
    for _ in range(200):
        world.copies, world.rates = world.rng.choice([0.0, 0.3]), right(world.rng.choice([4, 20, 99]), 0.9)
        world.steps(10)
    while world.policy._kept is not None and world.policy._kept.rounds:  # type: ignore[attr-defined]
        world.step()
    choices = world.policy._choices  # type: ignore[attr-defined]
    assert {index: choice._now for index, choice in choices.items()} == pytest.approx(passed)


def test_rounds_without_drafts_are_no_proof() -> None:
    """Predictors that let nothing go lose their turns; while they are asked there are few of them."""
    choice = DraftChoice(exit_drafts(), None)
    choice._maker = PredictedExit
    for tokens, accepted, drafted in ((3, 2, 2), (1, 0, 0)):
        for _ in range(20):
            source = PredictedExit() if drafted else None
            choice.learn(Round(0, (1,) * tokens, source, drafted, accepted, (0.9,) * drafted))
        assert choice.settled == (FEW_TURNS if drafted else 1)
    choice._proved, choice._asking = 20, True
    assert choice.settled == ASKING_TURNS


def test_plans_of_a_block_that_has_proved_itself_are_kept_longer() -> None:
    costs = ChainCost(0.5)
    costs.begin(LATENCY)
    choice, objective = DraftChoice(exit_drafts(), None, BlockChoice(costs)), Objective(LATENCY, LAYERS)
    settled = []
    for _ in range(12):
        draft = choice.draft(view(), objective)
        assert draft is not None
        assert draft.source == DrafterBlock()
        settled.append(choice.settled)
        choice.learn(Round(0, (1, 2), draft.source, 1, 1, (0.9,)))
    assert settled == [*range(1, FEW_TURNS), *[STEADY_TURNS] * (13 - FEW_TURNS)]
    while not choice.failed:  # what it has proved is not more than that of others
        choice.learn(Round(0, (1,), DrafterBlock(), 1, 0, (0.9,)))
        settled.append(choice.settled)
    assert len(settled) - 12 <= 2 * FEW_TURNS
    assert settled[13] < FEW_TURNS


def test_specee_asks_again_soon() -> None:
    exits = ExitView((3, 9), (0.5, 0.3))
    policy = make_policy("specee")
    policy.begin(ModelView(LAYERS, drafter=0.5, exits=exits))
    plan = policy.plan(Observation((view(),), LATENCY))
    assert isinstance(plan, Speculate)
    assert plan.turns == ASKING_TURNS


@pytest.mark.parametrize("seed", range(5))
def test_where_an_exit_layer_pays_looks_come_steadily(seed: int) -> None:
    """A layer is not compared with itself: chance alone must not start the search anew."""
    policy = begun("del")
    world = World(policy, right(10, 0.8), seed=seed)
    world.steps(100)
    choice = policy._choices[0]  # type: ignore[attr-defined]
    flips, before = 0, choice._exits.near
    for _ in range(600):
        world.step()
        flips += choice._exits.near is not before
        before = choice._exits.near
    assert flips < 20


def test_a_look_is_not_at_what_the_one_before_saw() -> None:
    """It comes after the round of its plan, when the text is longer than it was."""
    exits = exit_drafts(*range(1, LAYERS))
    choice, objective = DraftChoice(exits, None), Objective(LATENCY, LAYERS)
    for _ in range(200):
        choice.note(1.0, 0.0)  # there is time for looks
    assert choice.look(view(length=40), objective, objective) is not None
    choice.learn(Round(0, (1,) * 20))
    for length, looks in ((59 + POSITIONS, False), (60 + POSITIONS, True)):
        choice._now += 1000  # the pause is over
        choice.draft(view(length=length), objective)
        assert (choice.look(view(length=length), objective, objective) is not None) is looks


@pytest.mark.parametrize("drafted", [1, 12])
def test_where_all_layers_are_looked_at_long_failures_count_as_elsewhere(drafted: int) -> None:
    """What was drafted is among the shadows there, up to the first that was wrong."""
    exits = exit_drafts(6, 9)
    choice = DraftChoice(exits, None, all_layers=(False, (6, 9)))
    choice.see(ShadowTokens(0, 6, (True,) * 40, (0.9,) * 40))
    choice.learn(Round(0, (1,), ExitLayer(6), drafted, 0, (0.2,) * drafted))
    for layer in (6, 9):
        choice.see(ShadowTokens(0, layer, (False,), (0.2,)))
    kept = exits.known_of(False, 6, 1.0)
    assert (kept < 30) is (drafted > 4)


def test_where_all_layers_are_looked_at_only_the_latest_round_has_drafted() -> None:
    exits = exit_drafts(6, 9)
    choice = DraftChoice(exits, None, all_layers=(False, (6, 9)))
    choice.see(ShadowTokens(0, 6, (True,) * 40, (0.9,) * 40))
    choice.learn(Round(0, (1,) * 13, ExitLayer(6), 12, 12, (0.9,) * 12))
    choice.see(ShadowTokens(0, 6, (True,) * 13, (0.9,) * 13))
    choice.learn(Round(0, (1,)))
    choice.see(ShadowTokens(0, 6, (False,), (0.2,)))
    assert exits.known_of(False, 6, choice._now) > 30, "one miss, and nothing was drafted for it"
