"""The policy of pruned trees, what pruning is taken to cost, and when auto tries either kind of exits."""

from __future__ import annotations

import random
from typing import Any

import pytest

from specee.errors import ConfigurationError
from specee.policies import (
    Draft,
    DrafterTree,
    ExitView,
    Latency,
    Leave,
    LeaveEarly,
    ModelView,
    Observation,
    Outcome,
    PredictedExit,
    PredictedTree,
    Pruned,
    Round,
    Speculate,
    Times,
    make_policy,
)
from specee.policies.chain_cost import ChainCost
from specee.policies.objective import LONGEST, Objective
from specee.policies.predicted_choice import PredictedChoice, PredictedCost
from specee.policies.prune_cost import PruneCost
from specee.policies.tree_choice import TreeChoice
from specee.policies.tree_evidence import TreeEvidence
from tests.unit.planted_world import LATENCY, LAYERS, view

# Of 30 layers: tokens leave late, or early and nearly all.
LATE = ExitView((20, 24, 28), (0.1, 0.2, 0.3))
EARLY = ExitView((2, 4, 6), (0.1, 0.7, 0.19))
MODEL = ModelView(LAYERS, drafter=0.3, exits=LATE)
FLAT = Latency((1, 16), (1e-4, 1.01e-4), (2e-4, 2.02e-4), 1e-6, 1e-5)
STEEP = Latency((1, 16), (1e-4, 8e-4), (2e-4, 1.6e-3), 1e-6, 1e-5)  # a row more takes half of the first


def started(text: str, model: ModelView = MODEL) -> Any:
    policy = make_policy(text)
    return policy, policy.begin(model)


def planned(policy: Any, latency: Latency | None = LATENCY, **seen: Any) -> Draft:
    plan = policy.plan(Observation((view(**seen),), latency))
    assert isinstance(plan, Speculate)
    (draft,) = plan.drafts
    return draft


def test_trees_are_pruned_at_scheduled_layers_and_near_the_latest_exits() -> None:
    policy, needs = started("specee-tree:nodes=12,depth=5,width=3,children=2,threshold=0.7")
    source = PredictedTree(5, 3, 2, 0.7)
    assert needs.sources == (source,)
    assert needs.latency
    assert planned(policy, fresh=True).length == 0
    draft = planned(policy)
    assert (draft.source, draft.layers) == (source, (28,))  # over the mean of 0.2
    assert 1 <= draft.length <= 12
    gone = (Pruned(28, 0.2), Pruned(24, 0.1))
    entry = Round(0, (1, 2), source, 2, 1, (0.6, 0.3), (0,), 2, (22,), gone)
    policy.observe(Outcome((entry,), Times(draft=1e-4)))
    assert planned(policy).layers == (20, 24, 28)
    assert started("specee-tree:layers=all")[0].plan(Observation((view(),), LATENCY)).drafts[0].layers == (
        20,
        24,
        28,
    )


def test_fixed_sizes_need_no_times_and_paths_leave_with_shallower_trees() -> None:
    policy, needs = started("specee-tree:measured=false,nodes=40")
    assert not needs.latency
    assert planned(policy, None) == Draft(0, PredictedTree(), 40, layers=(28,))
    assert planned(policy, None, remaining=4).length == 3
    policy, needs = started("specee-tree:mode=approximate,threshold=0.6,nodes=9")
    assert not needs.latency
    plan = policy.plan(Observation((view(), view(1, fresh=True)), None))
    assert isinstance(plan, LeaveEarly)
    source = PredictedTree(3, 4, 4, 0.6)
    assert plan.leaves == (
        Leave(0, (28,), 0.6, 16, Draft(0, source, 9, layers=(28,))),
        Leave(1, (28,), 0.6, 16, Draft(1, source, 0, layers=(28,))),
    )
    policy.observe(Outcome((Round(0, (1, 2), source, 3, 1, (0.5,) * 3, (0,), 2, (24, 24)),)))
    assert policy.plan(Observation((view(),), None)).leaves[0].layers == (24, 28)


def test_a_tree_that_is_pruned_away_teaches_too() -> None:
    """A policy that only heard of verified drafts would never hear that all of its nodes were wrong."""
    policy, _ = started("specee-tree:nodes=12")
    draft = planned(policy, STEEP)
    assert draft.length > 1
    gone = tuple([Pruned(28, 0.3)] * draft.length)
    policy.observe(Outcome((Round(0, (1,), draft.source, pruned=gone, depth=1),), Times(draft=1e-3)))
    assert planned(policy, STEEP).length == 0


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("mode=lossy", "lossless, approximate"),
        ("layers=some", "scheduled, all"),
        ("threshold=2", "threshold"),
        ("nodes=0", "nodes"),
        ("depth=0", "depth"),
        ("measured=1", "measured"),
        ("max_disagreement=0.1", "max_disagreement"),
    ],
)
def test_settings_that_are_not_allowed(text: str, error: str) -> None:
    with pytest.raises(ConfigurationError, match=error):
        make_policy(f"specee-tree:{text}")


def test_without_predictors_or_a_block_it_says_what_to_do() -> None:
    for model in (ModelView(LAYERS, drafter=0.3), ModelView(LAYERS, exits=LATE)):
        with pytest.raises(ConfigurationError, match="speculator"):
            started("specee-tree", model)


# What pruning takes and spares


def test_what_is_spared_is_hoped_and_then_seen() -> None:
    cost = PruneCost(EARLY, LAYERS)
    usual = (2 * 0.1 + 4 * 0.7 + 6 * 0.19) / 0.99
    assert cost.spared == pytest.approx(1 - usual / LAYERS)
    cost.begin(LATENCY)
    guessed = cost.questions
    assert guessed == pytest.approx(2 * LATENCY.call)  # one layer sees more exits than the mean one
    for _ in range(60):  # eight wrong nodes a round, two of them pruned half way
        entry = Round(0, (1, 2), PredictedTree(), 7, 1, (0.1,) * 7, pruned=(Pruned(15, 0.1),) * 2)
        cost.learn(Outcome((entry,), Times(draft_head=3e-4)))
    assert cost.spared == pytest.approx(1 / 8, abs=0.05)
    assert cost.questions == pytest.approx(3e-4 + LATENCY.call, rel=0.01)
    cost.begin(LATENCY)
    assert cost.questions == pytest.approx(3e-4 + LATENCY.call, rel=0.01), "what was learnt stays"
    before = cost.spared, cost.questions
    cost.learn(Outcome((Round(0, (1,), DrafterTree(), 3, 0, (0.1,) * 3),), Times(draft_head=1.0)))
    assert (cost.spared, cost.questions) == before


def test_the_size_is_that_of_an_exhaustive_search() -> None:
    """With pruning: wrong nodes take less, and questions take something."""
    rng, sizes = random.Random(5), set()
    objective, cost = Objective(STEEP, LAYERS), ChainCost(0.3, DrafterTree)
    cost.begin(STEEP)
    for _ in range(40):
        pruning = PruneCost(rng.choice([EARLY, LATE]), LAYERS)
        pruning.begin(STEEP)
        choice, evidence = TreeChoice(cost, 12, pruning, whole=False), TreeEvidence()
        first, share = 0.3 + 0.7 * rng.random(), rng.random()
        chances = tuple([first * share**rank for rank in range(12)])
        choice.best(objective, 0.0)
        for now in range(1, 20):
            accepted = 2 * (rng.random() < first)
            stop = choice._planned.stop_below
            choice.learn(chances, accepted, 3, float(now))
            evidence.add(chances, accepted, 3, 12, stop, float(now), pruned=True)
        plan = choice.best(objective, 20.0)
        values = []
        for nodes, expected in enumerate(evidence.accepted(pruned=True)[:12], start=1):
            rows = nodes - pruning.spared * max(0.0, nodes - expected)
            seconds = objective.seconds(0, 0.0, rows) + cost.first + pruning.questions
            seconds += (min(evidence.depth, nodes) - 1) * cost.each
            values.append((1 + expected) / seconds * objective.plain)
        assert plan.pruned
        assert plan.value == pytest.approx(max(values), rel=1e-6)
        assert plan.nodes == min(2 * (values.index(max(values)) + 1), 12)
        sizes.add(plan.nodes)
    assert len(sizes) > 2


def test_predictors_prune_where_that_pays_and_else_trees_stay_whole() -> None:
    """Rows are dear and exits early; or rows are nearly free, or exits late."""
    for exits, latency, wanted in ((EARLY, STEEP, True), (EARLY, FLAT, False), (LATE, FLAT, False)):
        cost = ChainCost(0.05, DrafterTree)
        cost.begin(latency)
        pruning = PruneCost(exits, LAYERS)
        pruning.begin(latency)
        choice = TreeChoice(cost, LONGEST, pruning)
        objective = Objective(latency, LAYERS)
        for now in range(1, 30):
            plan = choice.best(objective, float(now))
            chances = tuple([0.7 * 0.9**rank for rank in range(plan.nodes)])
            choice.learn(chances, round(sum(chances)), 3, float(now))
        assert choice.best(objective, 30.0).pruned is wanted


def test_predictors_that_rule_out_right_nodes_are_trusted_less() -> None:
    evidence = TreeEvidence()
    for now in range(1, 40):
        evidence.add((0.8, 0.4), 1, 2, 2, 0.0, float(now), pruned=now % 2 == 0)
        if now % 2:
            continue
        evidence.add((0.8, 0.4), 0, 2, 2, 0.0, float(now), pruned=True)
    assert evidence.trusted(pruned=True) < 0.8 * evidence.trust
    assert evidence.accepted(pruned=True)[1] < evidence.accepted()[1]
    assert TreeEvidence().trusted(pruned=True) == 1


# Drafts with predictors


def test_what_cannot_pay_even_by_hope_is_never_tried() -> None:
    objective = Objective(LATENCY, LAYERS)
    late, early = (PredictedChoice(PredictedCost(exits, 2.5)) for exits in (LATE, EARLY))
    assert late.best(objective, 0.0).value < 1.03, "auto asks for more"
    hoped = early.best(objective, 0.0)
    assert hoped.value > 1.2
    assert hoped.length > 2


def test_hope_gives_way_to_what_was_seen_and_comes_back() -> None:
    objective = Objective(LATENCY, LAYERS)
    for drafted, exits in ((2, (4, 4)), (0, ())):  # all wrong; or no predictor is ever sure
        choice = PredictedChoice(PredictedCost(EARLY, 2.5))
        first = choice.best(objective, 0.0)
        for now in range(1, 12):
            choice.best(objective, float(now))
            choice.learn(
                Round(0, (1,), PredictedExit(), drafted, 0, (0.9,) * drafted, exits=exits), float(now)
            )
        assert choice.best(objective, 12.0).value < 1.03, "auto asks for more"
        assert choice.best(objective, 200.0) == first


def test_layers_and_seconds_are_learnt_from_rounds_with_predictors_alone() -> None:
    objective, cost = Objective(LATENCY, LAYERS), PredictedCost(EARLY, 0.1)
    before = cost.seconds(objective)
    entry = Round(0, (1, 2, 3), PredictedExit(), 2, 2, (0.9, 0.9), exits=(6, 6))
    cost.learn(Outcome((entry._replace(source=DrafterTree()),), Times(draft=1.0)), objective)
    assert cost.seconds(objective) == before
    for _ in range(60):
        cost.learn(Outcome((entry,), Times(draft=4e-3, verify=3e-3, head=1e-3)), objective)
    assert cost.seconds(objective)[2] == pytest.approx(8e-3, rel=0.02)


@pytest.mark.parametrize(("exits", "expected"), [(LATE, False), (EARLY, True)])
def test_auto_tries_predictors_where_they_could_pay(exits: ExitView, expected: bool) -> None:
    """Of all drafts of a text in which nothing else is ever right; the default model's exits are late."""
    model = ModelView(LAYERS, drafter=2.5, exits=exits)
    policy, needs = started("auto", model)
    assert {type(source) for source in needs.sources} >= {PredictedExit, PredictedTree}
    tried = 0
    for step in range(200):
        plan = policy.plan(Observation((view(length=40 + step),), LATENCY))
        entry = Round(0, (1,))
        if isinstance(plan, Speculate) and plan.drafts[0].length:
            draft = plan.drafts[0]
            wrong = draft.length
            entry = Round(0, (1,), draft.source, wrong, 0, (0.1,) * wrong, depth=1)
            if isinstance(draft.source, PredictedExit):
                tried += 1
                assert draft.layers
                entry = entry._replace(tokens=(1,) * (wrong + 1), accepted=wrong, exits=(4,) * wrong)
        policy.observe(Outcome((entry,), Times(verify=3e-3, head=2e-4)))
    assert (tried > 100) is expected
    assert tried == 0 or expected
