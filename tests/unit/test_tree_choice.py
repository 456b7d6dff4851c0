"""How large trees are: by what they take and how likely their nodes are; and the policy that grows them."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Any

import pytest

from specee.errors import ConfigurationError
from specee.policies import (
    Draft,
    DrafterTree,
    Latency,
    ModelView,
    Observation,
    Outcome,
    Round,
    Speculate,
    Times,
    make_policy,
)
from specee.policies.chain_cost import ChainCost
from specee.policies.objective import LONGEST, Objective
from specee.policies.tree_choice import TreeChoice, TreePlan
from specee.policies.tree_evidence import TreeEvidence
from tests.unit.planted_world import LATENCY, LAYERS, view

MODEL = ModelView(LAYERS, drafter=0.5)
DEAR = Latency((1, 16), (1e-4, 1e-3), (2e-4, 2e-3), 1e-6, 1e-5)  # a row more takes 0.6 of the first

FAIR = Latency((1, 16), (1e-4, 4e-4), (2e-4, 8e-4), 1e-6, 1e-5)


def round_of(chances: tuple[float, ...], accepted: int, depth: int = 2) -> Round:
    path = tuple(range(accepted))
    return Round(0, (1,) * (accepted + 1), DrafterTree(), len(chances), accepted, chances, path, depth)


def begun_cost() -> ChainCost:
    cost = ChainCost(0.5, DrafterTree)
    cost.begin(LATENCY)
    return cost


# What is known of trees


def test_evidence_is_what_was_seen_and_the_prior_beyond_it() -> None:
    evidence = TreeEvidence()
    fresh = evidence.accepted()
    assert len(fresh) == LONGEST
    for now in range(1, 200):
        evidence.add((0.8, 0.4, 0.2), 1 + now % 5 // 3, 2, 3, 0.0, float(now))  # 1.4 of 1.4
    found = evidence.accepted()
    assert evidence.trust == pytest.approx(1, abs=0.1)
    assert found[:3] == pytest.approx(
        [0.8 * evidence.trust, 1.2 * evidence.trust, 1.4 * evidence.trust], rel=0.05
    )
    steps = [b - a for a, b in zip([0.0, *found], found, strict=False)]
    assert all(0 < after <= before + 1e-12 for before, after in pairwise(steps))
    assert evidence.depth == pytest.approx(2, abs=0.05)


def test_chances_that_do_not_come_true_are_trusted_less() -> None:
    evidence = TreeEvidence()
    before = evidence.accepted()
    for now in range(1, 40):
        evidence.add((0.9, 0.8, 0.7), 0, 3, 3, 0.0, float(now))
    assert evidence.trust < 0.1
    assert evidence.accepted()[0] < before[0] / 4


def test_nodes_left_out_for_their_chance_count_as_unlikely() -> None:
    bounded, free = TreeEvidence(), TreeEvidence()
    for now in range(1, 40):
        bounded.add((0.9,), 1, 1, 6, 0.1, float(now))
        free.add((0.9,), 1, 1, 1, 0.1, float(now))
    assert bounded.accepted()[5] < free.accepted()[5]


def test_evidence_fades() -> None:
    evidence = TreeEvidence()
    evidence.add((0.9,), 1, 1, 1, 0.0, 1.0)
    assert evidence.weight(1.0) == 1
    assert evidence.weight(30.0) < 0.3
    for now in range(2, 200):
        evidence.add((0.9,), 1, 1, 1, 0.0, float(now))
    assert evidence.weight(199.0) <= 21


# How large


def test_the_size_is_that_of_an_exhaustive_search() -> None:
    """Value of every size by its own formula; the plan's is the largest."""
    rng = random.Random(3)
    sizes = set()
    for latency in (LATENCY, DEAR):
        objective, cost = Objective(latency, LAYERS), begun_cost()
        for _ in range(40):
            choice, evidence = TreeChoice(cost), TreeEvidence()
            first, share = rng.random(), rng.random()
            chances = tuple([first * share**rank for rank in range(12)])
            choice.best(objective, 0.0)
            for now in range(1, 25):
                accepted = rng.random() < first
                choice.learn(chances, accepted, 3, float(now))
                evidence.add(chances, accepted, 3, LONGEST, choice._planned.stop_below, float(now))
            plan = choice.best(objective, 25.0)
            values = []
            for nodes, expected in enumerate(evidence.accepted(), start=1):
                seconds = objective.seconds(0, 0.0, nodes) + cost.first
                seconds += (min(evidence.depth, nodes) - 1) * cost.each
                values.append((1 + expected) / seconds * objective.plain)
            assert plan.value == pytest.approx(max(values), rel=1e-6)
            assert plan.nodes == min(2 * (values.index(max(values)) + 1), LONGEST)
            sizes.add(plan.nodes)
    assert len(sizes) > 3


def learnt(latency: Latency, accepted: int, chances: tuple[float, ...] = (0.6, 0.3, 0.2, 0.1)) -> TreePlan:
    choice, objective = TreeChoice(begun_cost()), Objective(latency, LAYERS)
    choice.best(objective, 0.0)
    for now in range(1, 30):
        choice.learn(chances, accepted, 2, float(now))
    return choice.best(objective, 30.0)


def test_dear_rows_have_to_be_likely_and_cheap_ones_need_not_be() -> None:
    cheap, dear = learnt(LATENCY, 1), learnt(DEAR, 1)
    assert cheap.nodes > dear.nodes
    assert cheap.stop_below < 0.1 < dear.stop_below
    assert cheap.value > 1 > learnt(DEAR, 0).value


def test_a_row_is_worth_what_it_takes_at_the_pace_of_the_round() -> None:
    """The bound: where a node's chance, in tokens, is what its row's seconds give in tokens elsewhere."""
    objective, cost = Objective(LATENCY, LAYERS), begun_cost()
    choice = TreeChoice(cost)
    plan = choice.best(objective, 0.0)
    size = min(plan.nodes // 2, LONGEST - 1) or 1
    row = objective.seconds(0, 0.0, size + 1) - objective.seconds(0, 0.0, size)
    assert plan.stop_below == pytest.approx(plan.value / objective.plain * row, rel=1e-6)
    assert plan.deepen_from == pytest.approx(plan.value / objective.plain * cost.each / 0.7, rel=1e-6)


# What trees take


def test_costs_go_by_depths() -> None:
    cost = begun_cost()
    rng = random.Random(5)
    for _ in range(400):
        depth = rng.randint(1, 6)
        entry = Round(0, (1,), DrafterTree(), 12, 0, (0.1,) * 12, (), depth)
        cost.learn(Outcome((entry,), Times(draft=9e-4 + (depth - 1) * 1e-4)))
    assert cost.first == pytest.approx(9e-4, rel=0.05)
    assert cost.each == pytest.approx(1e-4, rel=0.1)


# The policy


def planned(policy: Any, latency: Latency | None = LATENCY, **seen: Any) -> Draft:
    plan = policy.plan(Observation((view(**seen),), latency))
    assert isinstance(plan, Speculate)
    (draft,) = plan.drafts
    return draft


def test_the_policy_grows_trees_while_they_pay_and_again_after_a_while() -> None:
    policy = make_policy("drafter-tree:nodes=12,depth=5,width=3,children=2")
    needs = policy.begin(MODEL)
    assert needs.sources == (DrafterTree(5, 3, 2),)
    assert needs.latency
    assert planned(policy, fresh=True).length == 0
    draft = planned(policy)
    assert draft.source == DrafterTree(5, 3, 2)
    assert 1 <= draft.length <= 12
    assert planned(policy, remaining=3).length == 2
    for _ in range(60):
        if planned(policy, FAIR).length:
            policy.observe(Outcome((round_of((0.5, 0.4), 0),), Times(draft=1e-3)))
        else:
            policy.observe(Outcome((Round(0, (1,)),), Times()))
    quiet = [planned(policy, FAIR).length]
    for _ in range(120):
        policy.observe(Outcome((Round(0, (1,)),), Times()))
        quiet.append(planned(policy, FAIR).length)
    assert 0 in quiet
    assert any(quiet)


def test_without_measured_times_the_size_is_what_was_asked_for() -> None:
    policy = make_policy("drafter-tree:measured=false,nodes=40,threshold=0.05")
    assert not policy.begin(MODEL).latency
    draft = planned(policy, None)
    assert (draft.length, draft.stop_below, draft.deepen_from) == (40, 0.05, 0.0)
    policy.observe(Outcome((round_of((0.5,), 0),), Times()))
    assert planned(policy, None) == draft


def test_same_outcomes_same_plans() -> None:
    plans = []
    for _ in range(2):
        policy, rng = make_policy("drafter-tree"), random.Random(8)
        policy.begin(MODEL)
        drafts = []
        for _ in range(50):
            drafts.append(planned(policy))
            chances = tuple(sorted([rng.random() for _ in range(max(1, drafts[-1].length))], reverse=True))
            policy.observe(Outcome((round_of(chances, rng.randint(0, 2)),), Times(draft=rng.random() * 1e-3)))
        plans.append(drafts)
    assert plans[0] == plans[1]


@pytest.mark.parametrize(
    "settings", ["nodes=0", "depth=0", "width=1.5", "children=-1", "threshold=2", "measured=1"]
)
def test_settings_that_mean_nothing_are_refused(settings: str) -> None:
    with pytest.raises(ConfigurationError, match=settings.partition("=")[0]):
        make_policy(f"drafter-tree:{settings}")


def test_a_model_without_a_block_and_observations_without_times_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="speculator"):
        make_policy("drafter-tree").begin(ModelView(LAYERS))
    policy = make_policy("drafter-tree")
    policy.begin(MODEL)
    with pytest.raises(ConfigurationError, match="latency"):
        planned(policy, None)
