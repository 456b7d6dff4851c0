"""Shadows, drafts and needs that cannot be had are refused before any work."""

from __future__ import annotations

import pytest

from specee.backends.protocol import Backend
from specee.engine import executor
from specee.errors import CapacityError, ConfigurationError
from specee.policies import (
    Draft,
    ExitLayer,
    Needs,
    NextToken,
    NgramLookup,
    Plan,
    Shadow,
    Speculate,
)
from specee.types import Sampling
from tests.unit.runs import by_hand
from tests.unit.shadow_runs import PROMPT, begun

WRONG = {
    "unknown sequence": (Shadow(7, (1,)),),
    "layer not kept": (Shadow(0, (2,)),),
    "the last layer": (Shadow(0, (3,)),),
    "no layer": (Shadow(0, ()),),
    "a layer twice": (Shadow(0, (1, 1)),),
    "no positions": (Shadow(0, (1,), 0),),
    "fewer than no positions": (Shadow(0, (1,), -2),),
    "twice": (Shadow(0, (1,), 1), Shadow(0, (1,), 2)),
    "no such head": (Shadow(0, (1,), 1, adapted=True),),
}


def refused(backend: Backend, plan: Plan, needs: Needs) -> None:
    run, _ = begun(backend, needs, NextToken((0,)), plan, NextToken((0,)))
    run.step()
    state, before = run.sequences[0].state, list(run.sequences[0].text)
    frontier = state.frontier
    with pytest.raises(ConfigurationError):
        run.step()
    assert (run.sequences[0].text, state.frontier, state.speculative) == (before, frontier, ())
    run.step()
    assert run.sequences[0].generated == by_hand(backend, PROMPT, 2, Sampling())


@pytest.mark.parametrize("case", WRONG)
def test_wrong_shadows_are_refused_before_any_work(engine: Backend, case: str) -> None:
    needs = Needs(shadow_layers=(1, 3), shadow_positions=4)
    refused(engine, NextToken((0,), WRONG[case]), needs)
    refused(engine, Speculate((Draft(0, ExitLayer(1), 2),), WRONG[case]), needs)
    begun(engine, needs, NextToken((0,), (Shadow(0, (1,), 1),)))[0].step()


@pytest.mark.parametrize(
    "otherwise",
    [
        Draft(1, ExitLayer(1), 1),
        Draft(0, ExitLayer(3), 1),
        Draft(0, ExitLayer(1), -1),
        Draft(0, ExitLayer(1, adapted=True), 1),
    ],
)
def test_wrong_drafts_otherwise_are_refused_before_any_work(engine: Backend, otherwise: Draft) -> None:
    refused(engine, Speculate((Draft(0, NgramLookup(), 2, 0.0, otherwise),)), Needs())


@pytest.mark.parametrize("layers", [(0, 1), (2, 1), (1, 1), (4,)])
def test_wrong_needs_are_refused(engine: Backend, layers: tuple[int, ...]) -> None:
    with pytest.raises(ConfigurationError, match=r"1\.\.3"):
        begun(engine, Needs(shadow_layers=layers, shadow_positions=1))


def test_the_same_plan_is_checked_once_and_refused_when_it_does_not_fit_any_more(
    engine: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked: list[Plan] = []

    def check(plan: Plan, *rest: object) -> None:
        checked.append(plan)
        check_plan(plan, *rest)  # type: ignore[arg-type]

    check_plan = executor.check_plan
    monkeypatch.setattr(executor, "check_plan", check)
    first, plan = NextToken((0,)), Speculate((Draft(0, NgramLookup(8, 8), 4),))  # nothing is found
    run, _ = begun(engine, Needs(), first, *[plan] * 12)
    run.step()
    while run.sequences[0].remaining > 4:
        assert run.step()
    assert checked == [first, plan]
    text = list(run.sequences[0].text)
    with pytest.raises(CapacityError, match="4 drafts"):
        run.step()
    assert run.sequences[0].text == text
