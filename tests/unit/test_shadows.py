"""What layers would have drafted, as the loop shows it to policies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from specee.backends.protocol import Backend
from specee.drafting import DraftHeads
from specee.engine import Request
from specee.models.speculator import Adapter, Speculator
from specee.policies import (
    Draft,
    ExitLayer,
    Needs,
    NextToken,
    Plan,
    Shadow,
    ShadowTokens,
    Speculate,
)
from specee.types import Sampling
from tests.engines import Engine
from tests.random_model import BASE, random_model
from tests.unit.runs import by_hand
from tests.unit.shadow_runs import PROMPT, begun, drafted

LAYERS = BASE.num_layers
ALL = Needs(shadow_layers=(1, 2, 3), shadow_positions=8)
BELOW = Needs(shadow_layers=(1, 2), shadow_positions=8)


def wanted(
    backend: Backend,
    shadow: Shadow,
    text: Sequence[int],
    prompt: int,
    slots: Sequence[int],
    heads: Any = None,
) -> list[ShadowTokens]:
    """By sequences of their own; within the prompt the full model's choice is what counts."""
    found = []
    for layer in shadow.layers:
        head = heads.of(layer) if shadow.adapted else None
        pairs = [drafted(backend, text[: slot + 1], layer, head) for slot in slots]
        truth = [
            text[slot + 1] if slot + 1 >= prompt else drafted(backend, text[: slot + 1], LAYERS)[0]
            for slot in slots
        ]
        matches = tuple(pair[0] == token for pair, token in zip(pairs, truth, strict=True))
        confidences: Any = pytest.approx(tuple([pair[1] for pair in pairs]), rel=1e-4)
        found.append(ShadowTokens(shadow.sequence, layer, matches, confidences, shadow.adapted))
    return found


def agree(got: Sequence[ShadowTokens], right: Sequence[ShadowTokens]) -> bool:
    return [one[:3] + one[4:] for one in got] == [one[:3] + one[4:] for one in right] and all(
        a.confidences == b.confidences for a, b in zip(got, right, strict=True)
    )


def fitted(backend: Backend) -> DraftHeads:
    rng = np.random.default_rng(12)
    adapter = Adapter(
        rng.uniform(0.5, 1.5, BASE.hidden_size).astype(np.float32),
        rng.normal(0, 0.2, (6, BASE.hidden_size)).astype(np.float32),
        rng.normal(0, 0.2, (BASE.hidden_size, 6)).astype(np.float32),
    )
    return DraftHeads(backend, Speculator(rng.permutation(BASE.vocab_size)[:40], {1: adapter}))


def test_shadows_of_a_prompt_and_of_what_follows(engine: Backend) -> None:
    look = Shadow(0, (1, 2), 4)
    later = Shadow(0, (2,), 6)
    none = Shadow(0, (1, 2))
    run, policy = begun(
        engine,
        ALL,
        NextToken((0,), (look,)),
        NextToken((0,)),
        NextToken((0,), (later,)),
        NextToken((0,), (none,)),
    )
    for _ in range(4):
        run.step()
    text = [*PROMPT, *run.sequences[0].generated]
    first, second, third, fourth = (outcome.shadows for outcome in policy.outcomes)
    assert agree(first, wanted(engine, look, text, 5, range(1, 5)))
    assert second == ()
    assert agree(third, wanted(engine, later, text, 5, range(1, 7)))
    assert agree(fourth, wanted(engine, none, text, 5, [7])), "a plain step verifies one position"
    assert not agree(first, wanted(engine, look, text, 5, range(4))), "other positions are not the same"
    times = [outcome.times.shadow for outcome in policy.outcomes]
    assert min(times[0], times[2], times[3]) > 0 == times[1]


def test_verified_positions_end_with_the_first_wrong_draft(engine: Backend) -> None:
    look = Shadow(0, (1, 2))
    plans = [Speculate((Draft(0, ExitLayer(1), 3),), (look,)) for _ in range(3)]
    run, policy = begun(engine, ALL, NextToken((0,)), *plans)
    run.step()
    for _ in range(3):
        length = len(run.sequences[0].text)
        run.step()
        entry, text = policy.outcomes[-1].rounds[0], run.sequences[0].text
        assert entry.drafted == 3
        shadows = policy.outcomes[-1].shadows
        assert agree(shadows, wanted(engine, look, text, 5, range(length - 1, len(text) - 1)))
        assert len(shadows[0].matches) == entry.accepted + 1
        assert shadows[0].matches[: entry.accepted] == (True,) * entry.accepted
        assert entry.accepted == 3 or not shadows[0].matches[-1], "the shadow at the exit layer is the draft"
        assert shadows[0].confidences[: entry.accepted] == pytest.approx(
            entry.confidences[: entry.accepted], rel=1e-4
        )


def test_a_prompt_is_judged_only_where_the_last_layer_is_kept(engine: Backend) -> None:
    look = Shadow(0, (1, 2), 4)
    run, policy = begun(engine, BELOW, NextToken((0,), (look,)), NextToken((0,), (look,)))
    run.step()
    run.step()
    text = run.sequences[0].text
    assert agree(policy.outcomes[0].shadows, wanted(engine, look, text, 5, [4])), "the text is known there"
    assert agree(policy.outcomes[1].shadows, wanted(engine, look, text, 5, [4, 5]))


def test_no_more_positions_than_are_kept(engine: Backend) -> None:
    needs, look = Needs(shadow_layers=(1, 2, 3), shadow_positions=2), Shadow(0, (1,), 100)
    run, policy = begun(engine, needs, NextToken((0,), (look,)))
    run.step()
    assert agree(policy.outcomes[0].shadows, wanted(engine, look, run.sequences[0].text, 5, [3, 4]))


def test_two_sequences_in_one_step_and_one_that_is_over(engine: Backend) -> None:
    looks = (Shadow(0, (1, 2), 3), Shadow(1, (2,)))
    requests = [Request(PROMPT, 5), Request((7, 8), 2)]
    plan = NextToken((0, 1), looks)
    run, policy = begun(engine, ALL, plan, plan, NextToken((0,), looks), requests=requests)
    run.step()
    texts = [list(run.sequences[index].text) for index in (0, 1)]
    right = wanted(engine, looks[0], texts[0], 5, range(2, 5)) + wanted(engine, looks[1], texts[1], 2, [1])
    assert agree(policy.outcomes[0].shadows, right)
    for _ in range(2):  # the second one ends with the second step
        run.step()
        assert {shadow.sequence for shadow in policy.outcomes[-1].shadows} == {0}
    assert run.sequences[1].finish_reason == "length"


def test_shadows_of_a_sequence_that_does_not_step(engine: Backend) -> None:
    """Positions are those that it has; it has verified none in this step."""
    looks = (Shadow(0, (1,)), Shadow(1, (1,), 2))
    requests = [Request(PROMPT, 5), Request((7, 8, 9), 5)]
    run, policy = begun(engine, ALL, NextToken((0, 1)), NextToken((1,), looks), requests=requests)
    run.step()
    run.step()
    assert agree(policy.outcomes[1].shadows, wanted(engine, looks[1], run.sequences[1].text, 3, [2, 3]))


def test_adapted_heads_draft_shadows_of_their_own(engine: Backend) -> None:
    heads = fitted(engine)
    looks = (Shadow(0, (1, 2), 4, adapted=True), Shadow(0, (2, 1), 4))
    run, policy = begun(engine, ALL, NextToken((0,), looks), NextToken((0,), looks), heads=heads)
    for begin in (1, 2):
        run.step()
        text = run.sequences[0].text
        slots = range(begin, begin + 4)
        right = [one for look in looks for one in wanted(engine, look, text, 5, slots, heads)]
        got = policy.outcomes[-1].shadows
        assert agree(got, right)
        assert not agree(got[:2], wanted(engine, looks[0]._replace(adapted=False), text, 5, slots))


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_a_shadow_that_fails_loses_no_token(
    engine: Backend, error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The step has been committed by then."""

    def fails(*_: object) -> None:
        raise error

    look = (Shadow(0, (1, 2), 2),)
    plans: list[Plan] = [
        NextToken((0,)),
        Speculate((Draft(0, ExitLayer(1), 3),), look),
        NextToken((0,), look),
    ]
    run, policy = begun(engine, ALL, *plans, *[NextToken((0,), look)] * 8, requests=[Request(PROMPT, 8)])
    run.step()
    with monkeypatch.context() as patch:
        patch.setattr(engine, "shadow", fails)
        for _ in range(2):
            length = len(run.sequences[0].text)
            with pytest.raises(error):
                run.step()
            sequence = run.sequences[0]
            assert len(sequence.text) > length
            assert sequence.state.speculative == ()
            rows = [sequence.state.row(slot).token for slot in range(sequence.state.length)]
            assert rows == sequence.text
    list(run)
    assert run.sequences[0].generated == by_hand(engine, PROMPT, 8, Sampling())
    assert policy.outcomes[-2].shadows, "and shadows are seen again"


@pytest.mark.parametrize("engine_", [Engine("reference")])
def test_wrong_expectations_are_noticed(engine_: Engine) -> None:
    """Shadows of layer 2 are not those of layer 1, nor are matches always what they are."""
    backend = engine_.load(random_model(BASE, seed=5))
    look = Shadow(0, (1,), 4)
    run, policy = begun(backend, ALL, NextToken((0,), (look,)))
    run.step()
    text = run.sequences[0].text
    other = [one._replace(layer=1) for one in wanted(backend, Shadow(0, (2,), 4), text, 5, range(1, 5))]
    assert not agree(policy.outcomes[0].shadows, other)
