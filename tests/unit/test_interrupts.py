"""Ctrl-C and other exceptions anywhere in a step: it has happened, or it has not."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest

from specee.backends.protocol import Backend, SequenceState
from specee.engine import Generation, Request, reserve
from specee.policies import (
    NextToken,
    Outcome,
    Round,
)
from specee.types import Sampling
from tests.unit.runs import Interrupted, Say, by_hand, generation


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("at", [1, 4])
@pytest.mark.parametrize("policy", ["autoregressive", "layerskip:exit_layer=2"])
def test_an_interrupt_leaves_a_sequence_that_goes_on(
    backend: Backend, policy: str, at: int, after: bool
) -> None:
    """Also one in the middle of drafting: no speculative row stays behind."""
    broken: Any = Interrupted(backend, at, after=after)
    given: list[int] = []
    run = generation(broken, Request((1, 2, 3), 6), policy=policy, burst=0.0)
    with pytest.raises(KeyboardInterrupt):
        given.extend(token for step in run for token in step[0])
    sequence = run.sequences[0]
    assert sequence.generated == given
    assert len(given) == (at - 1 if policy == "autoregressive" else min(at - 1, 1))
    assert sequence.state.speculative == ()
    assert sequence.state.length == 3 + len(sequence.generated)
    list(run)
    assert run.sequences[0].generated == by_hand(backend, (1, 2, 3), 6, Sampling())


def interrupting(state: SequenceState, at: int) -> list[int]:
    """Ctrl-C on return from the ``at``-th change of the rows from now on; the list counts them."""
    counted = [0]

    def after(change: Callable[..., object]) -> Callable[..., object]:
        def instead(*arguments: object) -> object:
            result = change(*arguments)
            counted[0] += 1
            if counted[0] == at:
                raise KeyboardInterrupt
            return result

        return instead

    for name in ("append", "branch", "commit", "rollback"):
        setattr(state, name, after(getattr(state, name)))
    return counted


@pytest.mark.parametrize(
    "policy", ["autoregressive", "layerskip:exit_layer=2", "prompt-lookup:shortest_ngram=1"]
)
def test_an_interrupt_anywhere_in_a_step_costs_nothing(backend: Backend, policy: str) -> None:
    """Also between the changes of a commit. Greedy and with an end inside a block."""
    for sampling in (Sampling(), Sampling(1.0, seed=3)):
        prompt = (1, 2, 3, 1, 2)
        free = by_hand(backend, prompt, 9, sampling)
        eos = frozenset({free[6]})
        wanted = free[: free.index(free[6]) + 1]
        at, counted = 1, [10**9]
        while counted[0] >= at:
            run = generation(backend, Request(prompt, 9, sampling, eos), policy=policy)
            run.step()
            counted = interrupting(run.sequences[0].state, at)
            with contextlib.suppress(KeyboardInterrupt):
                list(run)
            list(run)
            assert run.sequences[0].generated == wanted, at
            assert run.sequences[0].finish_reason == "eos"
            rows = run.sequences[0].state
            assert [rows.row(slot).token for slot in range(rows.length)] == [*prompt, *wanted]
            at += 1
        assert at > 5


def test_a_policy_that_fails_to_learn_loses_no_token(backend: Backend) -> None:
    class Forgetful(Say):
        def observe(self, outcome: Outcome) -> None:
            if self._plans:
                raise ZeroDivisionError

    run = Generation(
        backend, reserve(backend, [Request((1, 2, 3), 2)]), Forgetful(NextToken((0,)), NextToken((0,)))
    )
    with pytest.raises(ZeroDivisionError):
        run.step()
    list(run)
    assert run.sequences[0].generated == by_hand(backend, (1, 2, 3), 2, Sampling())
    assert run.statistics.steps == [(Round(0, (token,)),) for token in run.sequences[0].generated]


@pytest.mark.parametrize("at", [1, 3])
def test_what_was_committed_before_an_interrupted_shadow_is_counted(backend: Backend, at: int) -> None:
    calls = [0]
    shadow = backend.shadow

    def interrupted(*arguments: Any) -> Any:
        calls[0] += 1
        if calls[0] == at:
            raise KeyboardInterrupt
        return shadow(*arguments)

    run = generation(backend, Request((1, 2, 3, 1, 2), 8), policy="del:faithful=true")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backend, "shadow", interrupted)
        with pytest.raises(KeyboardInterrupt):
            list(run)
        list(run)
    assert run.sequences[0].generated == by_hand(backend, (1, 2, 3, 1, 2), 8, Sampling())
    assert sum(len(entry.tokens) for entry in run.statistics.rounds()) == 8
