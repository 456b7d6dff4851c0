"""SpecEE's policy: what it asks for, which layers it checks, and how it holds a bound."""

from __future__ import annotations

import warnings

import pytest

from specee.errors import ConfigurationError
from specee.policies import (
    ExitView,
    LeaveEarly,
    ModelView,
    Observation,
    Outcome,
    PredictedExit,
    Round,
    SequenceView,
    Speculate,
    make_policy,
)
from specee.policies.exit_schedule import ExitSchedule

LAYERS = tuple(range(1, 12))
SHARES = (0.0, 0.0, 0.02, 0.03, 0.05, 0.05, 0.05, 0.1, 0.3, 0.3, 0.1)
FREQUENT = (8, 9, 10, 11)  # over the mean share, 1 / 11
EXITS = ExitView(LAYERS, SHARES, (0.9, 0.6, 0.3), (0.001, 0.01, 0.2), 300)
VIEW = SequenceView(4, 10, (9,) * 12, 20)
FRESH = SequenceView(5, 10, (0,) * 12, 20)


def started(text: str, exits: ExitView | None = EXITS) -> object:
    policy = make_policy(text)
    policy.begin(ModelView(12, (), 0.3, exits=exits))
    return policy


def test_lossless_drafts_where_exits_are_frequent_or_near() -> None:
    policy = started("specee:threshold=0.7,speculation_length=2,longest=4")
    plan = policy.plan(Observation((VIEW, FRESH)))
    assert isinstance(plan, Speculate)
    assert [(d.sequence, d.source, d.length, d.layers) for d in plan.drafts] == [
        (4, PredictedExit(0.7), 2, FREQUENT),
        (5, PredictedExit(0.7), 0, FREQUENT),
    ]
    source = PredictedExit(0.7)
    policy.observe(Outcome((Round(4, (1, 2, 3), source, 2, 2, (0.9, 0.9), exits=(3, 4)), Round(5, (6,)))))
    plan = policy.plan(Observation((VIEW, FRESH)))
    assert [d.layers for d in plan.drafts] == [(1, 2, 3, 4, 5, 6, *FREQUENT), FREQUENT]
    assert plan.drafts[0].length == 3  # all were right


def test_approximate_leaves_and_forgets_exits_of_long_ago() -> None:
    policy = started("specee:mode=approximate,threshold=0.4")
    for layer in (2, 10, 10, 9, 9, 12):
        policy.observe(Outcome((Round(4, (1,), exits=(layer,)),)))
    plan = policy.plan(Observation((VIEW,)))
    assert isinstance(plan, LeaveEarly)
    assert plan.leaves[0][:3] == (4, (7, *FREQUENT), 0.4)  # 2 is six tokens ago
    policy.begin(ModelView(12, (), 0.3, exits=EXITS))
    assert policy.plan(Observation((VIEW,))).leaves[0].layers == FREQUENT


def test_all_layers_and_shares_that_are_equal() -> None:
    policy = started("specee:mode=approximate,layers=all")
    assert policy.plan(Observation((VIEW,))).leaves[0].layers == LAYERS
    assert ExitSchedule((1, 2, 3), (0.25, 0.25, 0.25)).of(0) == (1, 2, 3)  # none is over the mean


def test_a_bound_chooses_the_threshold() -> None:
    for bound, wanted in ((0.05, 0.6), (0.3, 0.3), (0.02, 0.9)):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            policy = started(f"specee:mode=approximate,max_disagreement={bound}")
        assert policy.threshold == wanted
        assert policy.plan(Observation((VIEW,))).leaves[0].threshold == wanted


@pytest.mark.parametrize(
    ("exits", "said"),
    [
        (EXITS, r"with 300 generations \(about \d+ would be needed"),
        (ExitView(LAYERS, SHARES, (0.9,), (0.4,), 300), "no number of generations would"),
        (ExitView(LAYERS, SHARES), "was not calibrated"),
    ],
)
def test_a_bound_that_cannot_be_certified_disables_exits(exits: ExitView, said: str) -> None:
    with pytest.warns(UserWarning, match=said):
        policy = started("specee:mode=approximate,max_disagreement=0.002", exits)
    assert policy.threshold is None
    assert policy.plan(Observation((VIEW,))).leaves[0].layers == ()


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("specee:mode=lossy", "lossless, approximate"),
        ("specee:layers=some", "scheduled, all"),
        ("specee:threshold=1.2", "threshold"),
        ("specee:max_disagreement=0.1", "mode='approximate'"),
        ("specee:mode=approximate,max_disagreement=0", "between 0 and 1"),
        ("specee:mode=approximate,layers=all,max_disagreement=0.1", "'scheduled'"),
        ("specee:speculation_length=0", "speculation_length"),
    ],
)
def test_settings_that_are_not_allowed(text: str, error: str) -> None:
    with pytest.raises(ConfigurationError, match=error):
        make_policy(text)


def test_without_predictors_it_says_what_to_do() -> None:
    with pytest.raises(ConfigurationError, match="specee fit"):
        started("specee", None)
