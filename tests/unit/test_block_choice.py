"""How far to draft with a block: by what its chains take and how often they are right."""

from __future__ import annotations

import random

import pytest

from specee.policies import (
    DrafterBlock,
    DrafterTree,
    ExitLayer,
    Latency,
    ModelView,
    NgramLookup,
    Outcome,
    Round,
    Times,
    make_policy,
)
from specee.policies.block_choice import BlockChoice, BlockPlan
from specee.policies.chain_cost import ChainCost
from specee.policies.draft_choice import DraftChoice
from specee.policies.objective import LONGEST, Acceptance, Objective
from specee.policies.tree_choice import TreePlan
from tests.unit.judged import best_stopped
from tests.unit.native_exits import exit_drafts
from tests.unit.planted_world import LATENCY, LAYERS, World, begun, draft_of, view

ROUND = Round(0, (1, 2), DrafterBlock(), 2, 1, (0.9, 0.4))


def outcome(drafts: int, seconds: float, *others: Round) -> Outcome:
    entry = Round(0, (1,), DrafterBlock(), drafts, 0, (0.5,) * drafts)
    return Outcome((entry, *others), Times(draft=seconds))


def begun_cost(share: float = 0.5) -> ChainCost:
    cost = ChainCost(share)
    cost.begin(LATENCY)
    return cost


# What chains take


def test_costs_are_guessed_from_bytes_and_learnt_from_chains() -> None:
    cost = begun_cost()
    assert cost.first == pytest.approx(0.5 * LATENCY.head[0] + LATENCY.call)
    assert 0 < cost.each < cost.first
    rng = random.Random(5)
    for _ in range(400):
        drafts = rng.randint(1, 6)
        cost.learn(outcome(drafts, 9e-4 + (drafts - 1) * 1e-4))
    assert cost.first == pytest.approx(9e-4, rel=0.05)
    assert cost.each == pytest.approx(1e-4, rel=0.1)
    cost.begin(LATENCY)
    assert cost.first == pytest.approx(9e-4, rel=0.05), "what was learnt stays"


def test_a_disturbed_round_moves_little_and_others_teach_nothing() -> None:
    cost = begun_cost()
    for _ in range(20):
        cost.learn(outcome(1, cost.first))
    first, each = cost.first, cost.each
    cost.learn(outcome(1, 1.0))
    assert cost.first == pytest.approx(1.05 * first)
    assert cost.each == each
    first = cost.first
    for other in (ExitLayer(3), NgramLookup()):
        cost.learn(outcome(2, 1e-9, ROUND._replace(sequence=1, source=other)))
    cost.learn(Outcome((Round(0, (1,)),), Times(draft=1.0)))
    assert (cost.first, cost.each) == (first, each)
    fresh = ChainCost(0.5)
    fresh.learn(outcome(2, 1.0))
    assert fresh.first == 0, "no guess yet"


def test_the_first_rounds_correct_a_bad_guess_at_once() -> None:
    """Texts are short: what is learnt only within tens of rounds comes too late for them."""
    guess = begun_cost()
    for factor, rounds in ((0.6, 1), (1.4, 1), (0.4, 4), (2.0, 6)):
        cost = begun_cost()
        for _ in range(rounds):
            cost.learn(outcome(1, factor * guess.first))
        assert cost.first == pytest.approx(factor * guess.first, rel=0.15)


def test_a_block_whose_first_round_was_disturbed_still_drafts() -> None:
    """What drafts take is learnt from drafts alone: nothing would say that they are cheap."""
    cost, objective = begun_cost(), Objective(LATENCY, LAYERS)
    choice = BlockChoice(cost)
    choice.learn([True, False], [0.9, 0.3], 1.0)
    before = choice.best(objective, 1.0)
    cost.learn(outcome(1, 50 * cost.first))
    after = choice.best(objective, 1.0)
    assert before.value > after.value > 1
    for _ in range(4):
        cost.learn(outcome(1, begun_cost().first))
    assert cost.first == pytest.approx(begun_cost().first, rel=0.15)


def test_a_tree_is_thought_to_take_a_pass_that_comes_to_nothing() -> None:
    chain, tree = begun_cost(), ChainCost(0.5, DrafterTree)
    tree.begin(LATENCY)
    assert (tree.first, tree.each) == (chain.first + chain.each, chain.each)


# What they are worth


def test_chains_by_an_exhaustive_search() -> None:
    objective = Objective(LATENCY, LAYERS)
    rng = random.Random(3)
    lengths = set()
    for _ in range(200):
        first, each = rng.uniform(1e-5, 1e-3), rng.uniform(1e-6, 3e-4)
        rate = rng.randint(0, 64) / 64
        found = objective.best_of(objective.chain_times(first, each), Acceptance(1.0, rate, 0.0))
        values = []
        for length in range(1, LONGEST + 1):
            seconds = objective.seconds(0, 0.0, length) + first + (length - 1) * each
            values.append(sum(rate**i for i in range(length + 1)) * objective.plain / seconds)
        assert found.value == pytest.approx(max(values))
        assert values[found.length - 1] == pytest.approx(max(values))
        lengths.add(found.length)
    assert len(lengths) > 3


def test_stopped_chains_are_those_of_an_exit_layer_that_costs_as_much() -> None:
    """Without layers and heads to draft with, the first draft as dear as each other one."""
    latency = Latency((1, 16), (1e-4, 1.3e-4), (2e-4, 3e-4))
    objective = Objective(latency, LAYERS)
    rates = Acceptance(0.75, 0.9, 0.2)
    exit_draft = best_stopped(objective, 1, 1.0, rates)
    each = 1e-4 + 2e-4
    chain = objective.best_of(objective.chain_times(each, each), rates)
    assert chain.length == exit_draft.length
    assert chain.value == pytest.approx(exit_draft.value, rel=0.02)  # one layer's rows are cheaper there


def test_a_block_that_is_right_drafts_far_and_one_that_is_wrong_not_at_all() -> None:
    objective, cost = Objective(LATENCY, LAYERS), begun_cost(2.0)
    good, bad = BlockChoice(cost), BlockChoice(cost)
    assert good.best(objective, 0.0) == bad.best(objective, 0.0)
    assert good.best(objective, 0.0).value > 1, "it is tried"
    for now in range(1, 30):
        good.learn([True] * 4, [0.9] * 4, float(now))
        bad.learn([False], [0.6], float(now))
    assert good.best(objective, 30.0).length > 5
    assert good.best(objective, 30.0).value > 2
    assert bad.best(objective, 30.0).value < 1
    assert bad.best(objective, 200.0).value > 1, "after a while it is tried again"


def test_confidence_that_tells_right_from_wrong_stops_chains() -> None:
    objective, cost = Objective(LATENCY, LAYERS), begun_cost(0.3)
    choice = BlockChoice(cost)
    for now in range(1, 40):
        choice.learn([True, True, False], [0.9, 0.8, 0.2], float(now))
    plan = choice.best(objective, 40.0)
    assert 0.2 < plan.stop_below < 0.8
    assert plan.length > 3


# In the policy


class Blocks(World):
    """The block's drafts are right as often as ``right`` says, and it is as sure of them as ever.

    Its trees have no branches.
    """

    right = 0.9

    def _round(self, one, draft):  # type: ignore[no-untyped-def]
        while draft is not None and isinstance(draft.source, NgramLookup):
            draft = draft.otherwise
        if draft is None or not isinstance(draft.source, (DrafterBlock, DrafterTree)):
            return super()._round(one, draft)
        accepted = 0
        if isinstance(draft.source, DrafterTree):
            chances = [0.9 ** (depth + 1) for depth in range(min(draft.length, draft.source.depth))]
            sure = tuple([chance for chance in chances if chance >= draft.stop_below])
            while accepted < len(sure) and self.rng.random() < self.right:
                accepted += 1
            tokens, path = (1,) * (accepted + 1), tuple(range(accepted))
            return Round(one.id, tokens, draft.source, len(sure), accepted, sure, path, len(sure))
        while accepted < draft.length and self.rng.random() < self.right:
            accepted += 1
        sure = (0.9,) * accepted + (0.3,) * (draft.length - accepted)
        return Round(one.id, (1,) * (accepted + 1), draft.source, draft.length, accepted, sure)


def test_auto_drafts_with_the_block_while_it_is_right() -> None:
    world = Blocks(begun("auto", ModelView(LAYERS, drafter=2.0)), lambda *_: 0.0)
    world.steps(60)

    def blocks() -> int:
        found = 0
        for plan in world.plans[-20:]:
            draft = draft_of(plan)
            while draft is not None and isinstance(draft.source, NgramLookup):
                draft = draft.otherwise
            found += draft is not None and isinstance(draft.source, (DrafterBlock, DrafterTree))
        return found

    assert blocks() == 20
    world.right = 0.0
    world.steps(60)
    assert blocks() < 10
    world.right = 0.9
    world.steps(120)
    assert blocks() == 20


class Promises:
    """Says what it was told to."""

    def __init__(self, plan: BlockPlan | TreePlan) -> None:
        self.plan = plan

    def best(self, objective: Objective, now: float) -> BlockPlan | TreePlan:
        return self.plan


@pytest.mark.parametrize(
    ("chain", "tree", "kind"),
    [
        (1.5, 1.5 * 1.04, DrafterBlock),
        (1.5, 1.5 * 1.06, DrafterTree),
        (0.9, 1.01, DrafterTree),  # beside nothing it need not promise more
        (0.9, 0.99, None),
        (1.01, 0.9, DrafterBlock),
    ],
)
def test_a_tree_has_to_promise_more_than_a_chain(chain: float, tree: float, kind: type | None) -> None:
    choice = DraftChoice(
        exit_drafts(),
        None,
        Promises(BlockPlan(2, 0.0, chain)),  # type: ignore[arg-type]
        Promises(TreePlan(4, 0.0, 0.0, tree)),  # type: ignore[arg-type]
    )
    draft = choice.draft(view(), Objective(LATENCY, LAYERS))
    assert (None if draft is None else type(draft.source)) is kind


def test_exit_layers_where_they_are_better_than_the_block() -> None:
    world = Blocks(
        begun("auto", ModelView(LAYERS, drafter=2.0)), lambda layer, _: 0.97 if layer >= 3 else 0.0
    )
    world.right = 0.1
    world.steps(80)
    layers = [draft for plan in world.plans[-20:] if (draft := draft_of(plan)) is not None]
    found = 0
    for wish in layers:
        draft = wish
        while draft.otherwise is not None and isinstance(draft.source, NgramLookup):
            draft = draft.otherwise
        found += isinstance(draft.source, ExitLayer)
    assert found > 12


def shadow_share(world: World, steps: int) -> float:
    """Of the time of so many steps more, as the world counts it."""
    total = spent = 0.0
    for _ in range(steps):
        states = sum(len(shadow.layers) * (shadow.positions or 1) for shadow in world.step().shadows)
        seconds = 2e-4 + states * 1e-5 if states else 0.0
        spent += seconds
        total += 3.2e-3 + seconds
    return spent / total


def test_while_the_block_drafts_hopeless_layers_are_looked_at_as_little_as_ever() -> None:
    hopeless = Blocks(begun("auto", ModelView(LAYERS, drafter=2.0)), lambda *_: 0.3)
    hopeless.steps(40)
    spent = shadow_share(hopeless, 600)
    assert spent < 0.004
    good = World(begun("auto"), lambda layer, _: 0.95 if layer >= 8 else 0.3)
    good.steps(40)
    assert shadow_share(good, 600) > max(0.01, 5 * spent), "where a layer drafts, others may be better"


def test_where_the_models_own_head_is_trimmed_it_is_not_drafted_with_whole() -> None:
    everywhere = tuple([(layer, 0.2) for layer in range(1, LAYERS)])
    for adapted, trimmed, kinds in (
        (everywhere, True, {True}),
        (everywhere, False, {True, False}),  # adapters may be worse than the model's own head
        (everywhere[3:9], False, {True, False}),
        ((), False, {False}),
    ):
        needs = make_policy("auto").begin(ModelView(LAYERS, adapted, trimmed=trimmed))
        assert {source.adapted for source in needs.sources if isinstance(source, ExitLayer)} == kinds
    needs = make_policy("auto").begin(ModelView(LAYERS, everywhere, trimmed=True))
    assert len(needs.shadow_layers) <= 17


def test_layers_with_an_adapter_are_not_measured_by_those_without() -> None:
    """A deeper layer's trimmed head would bound them, and drafts worse."""
    everywhere = tuple([(layer, 0.2) for layer in range(1, LAYERS)])
    for fitted, looked_at in (((3, 7), {3, 7, LAYERS}), ((), {*range(1, LAYERS + 1)})):
        policy = make_policy("del:adapted=true")
        needs = policy.begin(ModelView(LAYERS, everywhere, fitted=fitted))
        assert set(needs.shadow_layers) == looked_at


def test_costs_that_hardly_change_are_planned_with_as_before() -> None:
    cost, objective = begun_cost(), Objective(LATENCY, LAYERS)
    before = cost.times(objective)
    cost.learn(outcome(1, 1.02 * cost.first))
    assert cost.times(objective) is before
    assert cost.times(Objective(LATENCY, LAYERS)) is not before
    for _ in range(60):
        cost.learn(outcome(1, 2 * 0.9 * cost.first))
    now = cost.times(objective).seconds
    assert now == pytest.approx(objective.chain_times(cost.first, cost.each).seconds, rel=0.03)
    assert now[1] > 1.2 * before.seconds[1]
