"""Plans that are good for several turns: as many as nobody notices, each of them told to the policy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import specee
from specee.backends.protocol import Backend
from specee.drafting import DraftHeads
from specee.engine import Generation, Request, reserve
from specee.errors import ConfigurationError
from specee.models.speculator import Speculator
from specee.policies import (
    Draft,
    DrafterBlock,
    DrafterTree,
    ExitLayer,
    Needs,
    NextToken,
    NgramLookup,
    Plan,
    PredictedExit,
    Shadow,
    Speculate,
)
from specee.types import Sampling
from tests.engines import Engine, all_engines
from tests.exactness.test_draft_heads import random_adapter
from tests.random_drafter import random_parts
from tests.random_exits import random_exits
from tests.random_model import BASE, random_model
from tests.tiny_models import tiny_folder
from tests.unit.runs import Say, by_hand

PROMPT = (1, 2, 3)


def begun(
    backend: Backend,
    *plans: Plan,
    requests: Sequence[Request] | None = None,
    needs: Needs | None = None,
    heads: DraftHeads | None = None,
    burst: float = 60.0,
) -> tuple[Generation, Say]:
    """After the prompt; however slow the machine is."""
    policy = Say(NextToken(tuple(range(len(requests or [0]))), turns=9), *plans, needs=needs)
    sequences = reserve(backend, requests or [Request(PROMPT, 12)])
    run = Generation(backend, sequences, policy, heads, burst=burst)
    assert [len(tokens) for tokens in run.step().values()] == [1] * len(run.sequences), "the first is awaited"
    return run, policy


def test_one_step_is_all_turns_of_its_plan(backend: Backend) -> None:
    run, policy = begun(backend, NextToken((0,), turns=4))
    given = run.step()[0]
    assert list(given) == by_hand(backend, PROMPT, 5, Sampling())[1:]
    assert len(policy.observations) == 2, "asked once"
    assert [outcome.rounds[0].tokens for outcome in policy.outcomes[1:]] == [(token,) for token in given]
    assert run.steps == len(policy.outcomes) == 5
    seconds, spent = run.statistics.step_seconds, [one.times for one in run.statistics.outcomes]
    assert all(step > one.total > 0 for step, one in zip(seconds, spent, strict=True))
    outside = [step - one.total for step, one in zip(seconds[1:], spent[1:], strict=True)]
    assert outside == pytest.approx([outside[0]] * 4), "what is spent outside of calls is shared"


def test_a_text_that_ends_ends_the_turns(backend: Backend) -> None:
    free = by_hand(backend, PROMPT, 6, Sampling())
    ends = frozenset({free[2]})
    run, _ = begun(
        backend, NextToken((0, 1), turns=9), requests=[Request(PROMPT, 9, eos=ends), Request((4, 5), 9)]
    )
    given = run.step()
    until = free.index(free[2])
    assert list(given[0]) == free[1 : until + 1]
    assert len(given[1]) == until
    assert run.sequences[0].finish_reason == "eos"
    assert run.sequences[1].finish_reason is None


def test_a_length_ends_the_turns(backend: Backend) -> None:
    run, _ = begun(backend, NextToken((0,), turns=99))
    assert len(run.step()[0]) == 11
    assert run.sequences[0].finish_reason == "length"


def test_copies_end_the_turns(backend: Backend) -> None:
    never, always = Draft(0, NgramLookup(9, 9), 2), Draft(0, NgramLookup(1, 1), 2)
    every = tuple(range(BASE.vocab_size))
    run, policy = begun(
        backend, Speculate((never,), turns=3), Speculate((always,), turns=3), requests=[Request(every, 40)]
    )
    run.step()
    assert [one.rounds[0].source for one in policy.outcomes[1:]] == [None] * 3
    run.step()
    assert [one.rounds[0].source for one in policy.outcomes[4:]] == [NgramLookup(1, 1)]


def test_an_interrupt_before_anything_is_counted(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """The prompt's token is text then, and no step's time is known."""
    policy = Say(*[NextToken((0,), turns=5)] * 4)
    run = Generation(backend, reserve(backend, [Request(PROMPT, 12)]), policy, burst=60.0)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(run, "_count", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run.step()
    assert len(run.sequences[0].generated) == 1
    assert [len(run.step()[0]) for _ in range(3)] == [1, 5, 5]
    assert run.sequences[0].generated == by_hand(backend, PROMPT, 12, Sampling())


NATIVE = {
    "chain": DrafterBlock(),
    "tree": DrafterTree(3, 2, 2),
    "layer": ExitLayer(2),
    "adapted layer": ExitLayer(2, adapted=True),
    "predicted exits": PredictedExit(0.2),
}


@pytest.mark.parametrize("kind", NATIVE)
@pytest.mark.parametrize("engine", all_engines())
def test_turns_that_draft_are_what_single_ones_are(engine: Engine, kind: str) -> None:
    """Tokens, drafts, paths and confidences of each turn, also beside another sequence."""
    few = replace(BASE, vocab_size=6)  # so that drafts are right at times
    backend = engine.load(random_model(few, seed=2))
    rng = np.random.default_rng(4)
    parts, exits = random_parts(few, (1, few.num_layers), rng), random_exits(few, rng)
    adapters = {2: random_adapter(few.hidden_size, 4)}
    heads = DraftHeads(backend, Speculator(np.arange(6), adapters, parts, exits))
    layers = exits.layers if kind == "predicted exits" else ()
    drafts = tuple([Draft(index, NATIVE[kind], 3, layers=layers) for index in (0, 1)])
    requests = [Request((1, 2, 3), 60), Request((4, 5), 60, Sampling(1.0, seed=8))]
    needs = Needs((NATIVE[kind],))
    together, told = begun(
        backend, *[Speculate(drafts, turns=4)] * 3, requests=requests, needs=needs, heads=heads
    )
    given = [together.step() for _ in range(3)]
    alone, one_by_one = begun(backend, *[Speculate(drafts)] * 12, requests=requests, needs=needs, heads=heads)
    for _ in range(12):
        alone.step()
    assert [one.rounds for one in told.outcomes] == [one.rounds for one in one_by_one.outcomes]
    rounds = together.statistics.rounds()
    assert {entry.source for entry in rounds[2:]} <= {NATIVE[kind], None}
    assert bool([entry for entry in rounds if entry.exits]) is (kind == "predicted exits")
    assert 0 < sum(entry.accepted for entry in rounds) < sum(entry.drafted for entry in rounds)
    for index in (0, 1):
        tokens = together.sequences[index].generated
        assert tokens == alone.sequences[index].generated
        assert tokens[1:] == [token for step in given for token in step[index]]


def test_an_interrupt_between_turns_loses_none_that_counted(backend: Backend) -> None:
    """Rows of turns that did not count are computed again."""
    run, _ = begun(backend, *[NextToken((0,), turns=5)] * 4)
    sequence, left = run.sequences[0], [3]
    extend = sequence.extend

    def interrupted(*arguments: Any) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt
        extend(*arguments)

    sequence.extend = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        run.step()
    wanted = by_hand(backend, PROMPT, 12, Sampling())
    assert sequence.generated == wanted[:3], "the prompt's and two turns'"
    assert sequence.state.length == len(PROMPT) + 3
    for _ in range(2):
        run.step()
    assert sequence.generated == wanted


WATCHED = {
    "copies twice over": Speculate(
        (Draft(0, NgramLookup(), 2, otherwise=Draft(0, NgramLookup(1, 1), 2)),), turns=4
    ),
}


@pytest.mark.parametrize("name", WATCHED)
def test_one_turn_where_python_has_a_say(backend: Backend, name: str) -> None:
    run, policy = begun(backend, WATCHED[name])
    run.step()
    assert len(policy.outcomes) == 2


def test_shadows_are_seen_after_the_last_turn(backend: Backend) -> None:
    """Of the latest positions, or of all that the turns gave: what single turns show of the same ones."""
    needs = Needs(shadow_layers=(1, 3), shadow_positions=4)
    for positions, seen in ((2, 2), (None, 3)):
        looks = (Shadow(0, (1,), positions),)
        run, policy = begun(backend, NextToken((0,), looks, turns=3), needs=needs)
        run.step()
        assert [len(outcome.shadows) for outcome in policy.outcomes] == [0, 0, 0, 1]
        plans = [NextToken((0,), (Shadow(0, (1,), 1),))] * 3
        alone, one_by_one = begun(backend, *plans, needs=needs)
        for _ in range(3):
            alone.step()
        singles = [outcome.shadows[0] for outcome in one_by_one.outcomes[1:]][-seen:]
        [found] = policy.outcomes[-1].shadows
        assert found.matches == tuple([match for one in singles for match in one.matches])
        assert found.confidences == pytest.approx([share for one in singles for share in one.confidences])
        times = [outcome.times.shadow for outcome in policy.outcomes]
        assert times[:3] == [0, 0, 0]
        assert 0 < times[3] < run.statistics.step_seconds[3]


def test_one_turn_where_somebody_stops_the_text(backend: Backend) -> None:
    heard: list[int] = []

    def stop(generated: Sequence[int]) -> bool:
        heard.append(len(generated))
        return False

    run, policy = begun(backend, NextToken((0,), turns=4), requests=[Request(PROMPT, 9, stops=(stop,))])
    run.step()
    assert len(policy.outcomes) == 2
    assert heard == [1, 2], "every token, before there is another"


def test_slow_turns_come_one_by_one(backend: Backend) -> None:
    run, policy = begun(backend, NextToken((0,), turns=4), burst=0.0)
    assert len(run.step()[0]) == 1
    assert len(policy.outcomes) == 2


def test_callers_say_how_long_tokens_are_gathered(tmp_path: Path) -> None:
    model = specee.load(tiny_folder("llama", tmp_path, seed=1), backend="reference")
    counts = {
        burst: [
            len(step[0]) for step in model.start([1, 2, 3], max_new_tokens=9, eos_token_id=[], burst=burst)
        ]
        for burst in (0.0, 60.0)
    }
    assert counts == {0.0: [1] * 9, 60.0: [1, 8]}


def test_a_plan_for_no_turn_is_refused(backend: Backend) -> None:
    wrong: list[NextToken | Speculate] = [
        NextToken((0,), turns=0),
        Speculate((Draft(0, NgramLookup(), 2),), turns=-1),
        NextToken((0,), turns=2.5),  # type: ignore[arg-type]
        NextToken((0,), turns="4"),  # type: ignore[arg-type]
    ]
    for plan in wrong:
        run, _ = begun(backend, plan)
        with pytest.raises(ConfigurationError, match=f"{plan.turns!r} turns"):
            run.step()
        assert run.sequences[0].generated == by_hand(backend, PROMPT, 1, Sampling())
