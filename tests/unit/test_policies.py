"""Policies are pure: data in, data out, no model in sight."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from specee.errors import ConfigurationError
from specee.policies import (
    Draft,
    ExitLayer,
    ExitView,
    Latency,
    LayerSkip,
    ModelView,
    Needs,
    NextToken,
    NgramLookup,
    Observation,
    Outcome,
    Policy,
    PromptLookup,
    Round,
    SequenceView,
    Speculate,
    Threshold,
    make_policy,
    policy_names,
)

LAYERS = 10
EXITS = ExitView(tuple(range(1, LAYERS)), (0.1,) * (LAYERS - 1))
MODEL = ModelView(LAYERS, drafter=0.3, exits=EXITS)
LATENCY = Latency((1, 8), (1e-4, 1.2e-4), (1e-3, 1.5e-3), 1e-5, 1e-4)


def view(index: int = 0, *, length: int = 8, first: int = 7, remaining: int = 50) -> SequenceView:
    return SequenceView(index, length, (first, *[first - 1] * (LAYERS - 1)), remaining)


def observation(*views: SequenceView) -> Observation:
    return Observation(views or (view(),), LATENCY)


def begun(policy: str) -> Policy:
    made = make_policy(policy)
    made.begin(MODEL)
    return made


def drafts(policy: Policy, *views: SequenceView) -> tuple[Draft, ...]:
    plan = policy.plan(observation(*views))
    assert isinstance(plan, Speculate)
    return plan.drafts


def told(policy: Policy, drafted: int, accepted: int, sequence: int = 0) -> None:
    tokens = tuple(range(accepted + 1))
    policy.observe(Outcome((Round(sequence, tokens, ExitLayer(3), drafted, accepted, (0.5,) * drafted),)))


def test_autoregressive_plans_a_token_for_everyone() -> None:
    policy = begun("autoregressive")
    assert policy.plan(observation(view(0), view(3))) == NextToken((0, 3), turns=64)
    policy.observe(Outcome((Round(0, (5,)), Round(3, (6,)))))
    assert policy.plan(observation(view(0), view(3))) == NextToken((0, 3), turns=64)


@pytest.mark.parametrize("name", policy_names())
def test_each_policy_is_fresh_and_knows_its_name(name: str) -> None:
    assert make_policy(name).name == name
    assert make_policy(name) is not make_policy(name)


@pytest.mark.parametrize("name", policy_names())
def test_no_policy_drafts_on_a_prompt_or_beyond_the_budget(name: str) -> None:
    policy = begun(name)
    for remaining in (1, 2, 3, 50):
        for first in (0, 3, 7):
            plan = policy.plan(observation(view(first=first, remaining=remaining)))
            for draft in plan.drafts if isinstance(plan, Speculate) else ():
                assert 0 <= draft.length < remaining
                assert first == 7 or draft.length == 0


@pytest.mark.parametrize("name", policy_names())
def test_the_same_history_gives_the_same_plans(name: str) -> None:
    history = [(3, 3), (3, 0), (4, 2), (1, 1), (2, 2), (6, 5)]
    first, second = begun(name), begun(name)
    for drafted, accepted in history:
        assert first.plan(observation()) == second.plan(observation())
        told(first, drafted, accepted)
        told(second, drafted, accepted)
    end = first.plan(observation())
    assert end == second.plan(observation())
    first.begin(MODEL)
    assert first.plan(observation()) == begun(name).plan(observation()), "begin() forgets"


def test_a_length_moves_by_one_however_many_turns_a_plan_had() -> None:
    for name in ("drafter", "layerskip-adaptive:exit_layer=4", "prompt-lookup"):
        policy = begun(name)
        first = drafts(policy)[0].length
        for _ in range(4):
            told(policy, first, first)
        assert drafts(policy)[0].length == first + 1
        for accepted in (first, 0, 0):  # the latest counts
            told(policy, first + 1, accepted)
        assert drafts(policy)[0].length == first


def test_layerskip_is_static() -> None:
    policy = begun("layerskip:exit_layer=4,speculation_length=5")
    wanted = Draft(0, ExitLayer(4), 5)
    assert drafts(policy) == (wanted,)
    told(policy, 5, 0)
    assert drafts(policy) == (wanted,)
    assert drafts(begun("layerskip"))[0].source == ExitLayer(8)
    assert drafts(begun("layerskip:adapted=true"))[0].source == ExitLayer(8, adapted=True)


@pytest.mark.parametrize("name", ["drafter", "layerskip-adaptive", "prompt-lookup"])
def test_adaptive_length_follows_acceptance_of_its_own_sequence(name: str) -> None:
    policy = begun(f"{name}:speculation_length=2,longest=3")
    told(policy, 2, 2)
    assert [d.length for d in drafts(policy, view(0), view(1))] == [3, 2]
    told(policy, 3, 3)
    assert drafts(policy)[0].length == 3, "no longer than longest"
    for wanted in (2, 1, 1):
        told(policy, 3, 1)
        assert drafts(policy)[0].length == wanted
    told(policy, 0, 0)
    assert drafts(policy)[0].length == 1, "a round without drafts says nothing"


@pytest.mark.parametrize("name", ["drafter", "layerskip", "layerskip-adaptive", "prompt-lookup"])
def test_what_has_not_changed_is_the_same_plan(name: str) -> None:
    policy = begun(name)
    plan = policy.plan(observation(view(0), view(1)))
    assert policy.plan(observation(view(0), view(1))) is plan
    assert policy.plan(observation(view(0))) != plan
    assert policy.plan(observation(view(0, remaining=2), view(1))) != plan


def test_threshold_rises_when_drafts_fail_and_falls_when_they_hold() -> None:
    """Worked by hand: rate 0.9 -> 0.45 after a failure, so the threshold moves a tenth of 0.01 up."""
    policy = begun("threshold:exit_layer=4,threshold=0.6,target=0.9,longest=7")
    assert drafts(policy) == (Draft(0, ExitLayer(4), 7, 0.6),)
    told(policy, 4, 0)
    assert drafts(policy)[0].stop_below == pytest.approx(0.601)
    for _ in range(5):  # rates 0.725, 0.8625, 0.93125, ...: the first two are still under the target
        told(policy, 4, 4)
    assert drafts(policy)[0].stop_below == pytest.approx(0.601 + 2 * 0.001 - 3 * 0.001)
    assert drafts(policy, view(0), view(1))[1].stop_below == 0.6, "another sequence is as it was"


def test_threshold_stays_a_probability() -> None:
    for start, accepted in ((0.0, 4), (1.0, 0)):
        policy = begun(f"threshold:threshold={start}")
        for _ in range(20):
            told(policy, 4, accepted)
        assert 0.0 <= drafts(policy)[0].stop_below <= 1.0


def test_prompt_lookup_asks_for_what_it_was_told() -> None:
    policy = begun("prompt-lookup:speculation_length=4,longest_ngram=2,shortest_ngram=2")
    assert drafts(policy) == (Draft(0, NgramLookup(2, 2), 4),)


def test_unknown_policy_lists_those_that_exist() -> None:
    with pytest.raises(ConfigurationError, match=r"policy='magic'.*autoregressive"):
        make_policy("magic")


@pytest.mark.parametrize(
    "spec",
    [
        "layerskip:exit=3",
        "layerskip:exit_layer",
        "layerskip:exit_layer=3,exit_layer=4",
        "layerskip:exit_layer=x",
        "layerskip:exit_layer=0",
        "layerskip:exit_layer=2.5",
        "layerskip:speculation_length=-1",
        "layerskip:adapted=1",
        "autoregressive:speculation_length=1",
        "layerskip-adaptive:speculation_length=0",
        "layerskip-adaptive:speculation_length=9,longest=8",
        "prompt-lookup:speculation_length=9,longest=8",
        "prompt-lookup:speculation_length=0",
        "threshold:threshold=1.5",
        "threshold:target=nan",
        "threshold:longest=-2",
        "prompt-lookup:longest_ngram=1,shortest_ngram=2",
        "prompt-lookup:shortest_ngram=0",
    ],
)
def test_wrong_settings_are_refused(spec: str) -> None:
    with pytest.raises(ConfigurationError, match=spec.partition(":")[0]):
        make_policy(spec)


@pytest.mark.parametrize("name", ["layerskip", "layerskip-adaptive", "threshold"])
@pytest.mark.parametrize("layer", [LAYERS, LAYERS + 1])
def test_an_exit_layer_is_below_the_last(name: str, layer: int) -> None:
    with pytest.raises(ConfigurationError, match=rf"{layer}.*1..{LAYERS - 1}"):
        begun(f"{name}:exit_layer={layer}")
    begun(f"{name}:exit_layer={LAYERS - 1}")
    with pytest.raises(ConfigurationError):
        make_policy(name).begin(ModelView(1))  # nothing below the only layer


def test_policies_name_their_sources() -> None:
    assert make_policy("autoregressive").begin(MODEL) == Needs()
    assert make_policy("layerskip:exit_layer=3,adapted=true").begin(MODEL) == Needs(
        (ExitLayer(3, adapted=True),)
    )
    assert make_policy("prompt-lookup:longest_ngram=5").begin(MODEL) == Needs((NgramLookup(5, 2),))


def test_whole_numbers_of_other_libraries_are_whole_numbers() -> None:
    assert LayerSkip(np.int64(2)).begin(MODEL) == Needs((ExitLayer(2),))  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="is a class"):
        make_policy(LayerSkip)  # type: ignore[arg-type]


def test_objects_are_policies_too() -> None:
    made = LayerSkip(exit_layer=3)
    assert make_policy(made) is made
    odd: Any = object()
    with pytest.raises(ConfigurationError, match="begin, plan, observe"):
        make_policy(odd)
    assert isinstance(make_policy("threshold"), Threshold)
    assert isinstance(make_policy("prompt-lookup"), PromptLookup)
