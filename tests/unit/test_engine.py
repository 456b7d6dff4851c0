"""The generation loop and the chat on a tiny reference model."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from specee.backends.protocol import Backend, SequenceState, Work
from specee.chat import Chat
from specee.engine import Generation, Request, reserve
from specee.errors import CapacityError, ConfigurationError
from specee.options import NAMES, Options, resolve
from specee.policies import (
    Draft,
    DraftSource,
    ExitLayer,
    NextToken,
    NgramLookup,
    Observation,
    Outcome,
    Plan,
    Round,
    Speculate,
    make_policy,
)
from specee.types import Sampling
from tests.engines import Engine
from tests.random_model import BASE, random_model


@pytest.fixture(scope="module")
def backend() -> Backend:
    return Engine("reference").load(random_model(BASE, seed=5))


def generation(backend: Backend, *requests: Request, policy: str = "autoregressive") -> Generation:
    return Generation(backend, reserve(backend, requests), make_policy(policy))


def by_hand(backend: Backend, prompt: tuple[int, ...], count: int, sampling: Sampling) -> list[int]:
    """Decoding from scratch for every token."""
    text = list(prompt)
    for _ in range(count):
        sequence = backend.sequence(len(text))
        work = [(sequence, [sequence.append(text)[-1]])]
        backend.advance(work, BASE.num_layers)
        text.append(int(backend.sample(work, [sampling])[0]))
    return text[len(prompt) :]


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(1.0, seed=3), Sampling(0.8, 20, 0.9, 4)])
def test_gives_what_decoding_by_hand_gives(backend: Backend, sampling: Sampling) -> None:
    run = generation(backend, Request((1, 2, 3), 6, sampling))
    steps = list(run)
    assert run.sequences[0].generated == by_hand(backend, (1, 2, 3), 6, sampling)
    assert [step[0] for step in steps] == [(token,) for token in run.sequences[0].generated]
    assert run.sequences[0].finish_reason == "length"
    assert run.steps == 6


def test_a_batch_gives_what_each_gives_alone(backend: Backend) -> None:
    requests = [Request((1, 2, 3), 5), Request((4,), 8, Sampling(1.0, seed=1)), Request(tuple(range(9)), 2)]
    together = generation(backend, *requests)
    list(together)
    for index, request in enumerate(requests):
        alone = generation(backend, request)
        list(alone)
        assert together.sequences[index].generated == alone.sequences[0].generated


def test_a_stop_token_ends_its_row_only(backend: Backend) -> None:
    free = by_hand(backend, (1, 2, 3), 6, Sampling())
    run = generation(backend, Request((1, 2, 3), 6, eos=frozenset({free[2]})), Request((1, 2, 3), 6))
    list(run)
    cut = free.index(free[2]) + 1
    assert run.sequences[0].generated == free[:cut]
    assert run.sequences[0].finish_reason == "eos"
    assert run.sequences[1].generated == free


def test_rows_are_the_text_between_steps(backend: Backend) -> None:
    run = generation(backend, Request((1, 2, 3), 6))
    for _ in run:
        state = run.sequences[0].state
        text = [1, 2, 3, *run.sequences[0].generated]
        assert [state.row(slot).token for slot in range(state.length)] == text
        assert state.speculative == ()


class Interrupted:
    """A backend whose n-th advance meets Ctrl-C, before or after its work."""

    def __init__(self, backend: Backend, at: int, *, after: bool) -> None:
        self._backend, self._left, self._after = backend, at, after

    def __getattr__(self, name: str) -> object:
        return getattr(self._backend, name)

    def advance(self, work: Work, to_layer: int) -> None:
        self._left -= 1
        if self._left == 0 and not self._after:
            raise KeyboardInterrupt
        self._backend.advance(work, to_layer)
        if self._left == 0:
            raise KeyboardInterrupt

    def verify(self, work: Work, sampling: Sequence[Sampling] | None) -> tuple[list[int], float, float]:
        self.advance(work, self._backend.config.num_layers)
        return self._backend.verify(work, sampling)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("at", [1, 4])
@pytest.mark.parametrize("policy", ["autoregressive", "layerskip:exit_layer=2"])
def test_an_interrupt_leaves_a_sequence_that_goes_on(
    backend: Backend, policy: str, at: int, after: bool
) -> None:
    """Also one in the middle of drafting: no speculative row stays behind."""
    broken: Any = Interrupted(backend, at, after=after)
    run = generation(broken, Request((1, 2, 3), 6), policy=policy)
    with pytest.raises(KeyboardInterrupt):
        list(run)
    sequence = run.sequences[0]
    assert len(sequence.generated) == (at - 1 if policy == "autoregressive" else min(at - 1, 1))
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


class Counting:
    """Counts the sequences that a backend hands out."""

    def __init__(self, backend: Backend) -> None:
        self.backend, self.config, self.made = backend, backend.config, 0

    def sequence(self, *arguments: object) -> SequenceState:
        self.made += 1
        return self.backend.sequence(*arguments)  # type: ignore[arg-type]


def test_a_request_that_cannot_end_does_not_begin(backend: Backend) -> None:
    counting = Counting(backend)
    with pytest.raises(CapacityError, match=r"257.*256"):
        reserve(counting, [Request((1,), 5), Request((1, 2), 255)])  # type: ignore[arg-type]
    assert counting.made == 0
    assert reserve(backend, [Request((1, 2), 254)])[0].state.capacity == 256


@pytest.mark.parametrize("request_", [lambda: Request((), 3), lambda: Request((1,), 0)])
def test_empty_requests_are_refused(request_: object) -> None:
    with pytest.raises(ConfigurationError):
        request_()  # type: ignore[operator]


class Say:
    """A policy that says what it is told to."""

    name = "say"

    def __init__(self, *plans: Plan) -> None:
        self._plans = list(plans)
        self.outcomes: list[Outcome] = []

    def begin(self, layers: int) -> tuple[DraftSource, ...]:
        """Nothing to get ready."""
        return ()

    def plan(self, observation: Observation) -> Plan:
        return self._plans.pop(0)

    def observe(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)


EXIT = ExitLayer(1)
WRONG_PLANS = {
    "no plan": (ConfigurationError, None),
    "nobody": (ConfigurationError, NextToken(())),
    "twice": (ConfigurationError, NextToken((0, 0))),
    "a stranger": (ConfigurationError, NextToken((7,))),
    "one that is over": (ConfigurationError, Speculate((Draft(0, EXIT, 0), Draft(1, EXIT, 0)))),
    "negative length": (ConfigurationError, Speculate((Draft(0, EXIT, -1),))),
    "first layer is 1": (ConfigurationError, Speculate((Draft(0, ExitLayer(0), 1),))),
    "last layer": (ConfigurationError, Speculate((Draft(0, ExitLayer(BASE.num_layers), 1),))),
    "no such head": (ConfigurationError, Speculate((Draft(0, ExitLayer(1, adapted=True), 1),))),
    "no such source": (ConfigurationError, Speculate((Draft(0, object(), 1),))),  # type: ignore[arg-type]
    "outgrows the cache": (CapacityError, Speculate((Draft(0, EXIT, 8),))),
}


@pytest.mark.parametrize("case", WRONG_PLANS)
def test_a_wrong_plan_is_refused_before_any_work(backend: Backend, case: str) -> None:
    error, plan = WRONG_PLANS[case]
    broken: Any = Interrupted(backend, 2, after=False)  # one advance is the first step's
    run = Generation(
        broken,
        reserve(backend, [Request((1, 2, 3), 9), Request((1,), 1)]),
        Say(NextToken((0, 1)), plan),  # type: ignore[arg-type]
    )
    run.step()
    before = run.sequences[0].state.frontier
    with pytest.raises(error):
        run.step()
    assert run.sequences[0].state.frontier == before
    assert run.sequences[0].state.speculative == ()


def test_a_policy_hears_what_came_of_its_plan(backend: Backend) -> None:
    free = by_hand(backend, (1, 2, 3), 9, Sampling())
    policy = Say(
        NextToken((0,)), Speculate((Draft(0, EXIT, 4),)), Speculate((Draft(0, NgramLookup(1, 1), 2),))
    )
    run = Generation(backend, reserve(backend, [Request((1, 2, 3), 9)]), policy)
    for _ in range(3):
        run.step()
    first, second, third = (outcome.rounds[0] for outcome in policy.outcomes)
    assert (first.source, first.tokens, first.drafted) == (None, (free[0],), 0)
    assert (second.source, second.drafted, len(second.confidences)) == (EXIT, 4, 4)
    assert len(second.tokens) == second.accepted + 1
    assert first.tokens + second.tokens + third.tokens == tuple(free[: len(run.sequences[0].generated)])
    for outcome, seconds in zip(policy.outcomes, run.statistics.step_seconds, strict=True):
        assert 0 < outcome.times.total < seconds
    assert policy.outcomes[1].times.draft > 0
    assert policy.outcomes[2].times.draft == policy.outcomes[2].times.draft_head == 0
    assert run.statistics.steps == [outcome.rounds for outcome in policy.outcomes]


def test_processors_run_once_a_token_on_accepted_prefixes(backend: Backend) -> None:
    """Also where a block ends early: nothing is processed beyond an end-of-text token or a stop."""
    prompt = (1, 2, 3)

    def text_of(policy: str, **more: Any) -> tuple[list[int], list[tuple[int, ...]], str | None]:
        seen: list[tuple[int, ...]] = []

        def first(text: np.ndarray, scores: np.ndarray) -> np.ndarray:
            seen.append(tuple(text.tolist()))
            return scores * np.float32(0.5)

        def second(text: np.ndarray, scores: np.ndarray) -> np.ndarray:
            assert seen[-1] == tuple(text.tolist()), "in order"
            scores = scores.copy()
            scores[text[-1]] = -np.inf
            return scores

        run = generation(backend, Request(prompt, 12, processors=(first, second), **more), policy=policy)
        list(run)
        accepted.append(run.statistics.acceptance.accepted)
        return run.sequences[0].generated, seen, run.sequences[0].finish_reason

    accepted: list[int] = []
    free, seen, _ = text_of("autoregressive")
    assert seen == [(*prompt, *free[:n]) for n in range(12)]
    for more in ({}, {"eos": frozenset({free[5]})}, {"stops": (lambda tokens: len(tokens) == 6,)}):
        plain = text_of("autoregressive", **more)
        for policy in ("layerskip:exit_layer=2,speculation_length=4", "prompt-lookup"):
            assert text_of(policy, **more) == plain
    assert max(accepted) > 0
    assert plain[2] == "stop"


def test_stops_see_every_accepted_token_once(backend: Backend) -> None:
    for policy in ("autoregressive", "layerskip:exit_layer=2,speculation_length=4"):
        seen: list[tuple[int, ...]] = []

        def stop(tokens: Any, seen: list[tuple[int, ...]] = seen) -> bool:
            seen.append(tuple(tokens))
            return len(tokens) == 7

        run = generation(backend, Request((1, 2, 3), 12, stops=(stop,)), policy=policy)
        list(run)
        free = by_hand(backend, (1, 2, 3), 7, Sampling())
        assert seen == [tuple(free[: n + 1]) for n in range(7)]
        assert (run.sequences[0].generated, run.sequences[0].finish_reason) == (free, "stop")


@pytest.mark.parametrize("wrong", [np.zeros(3), np.full(101, -np.inf), np.full(101, np.nan)])
def test_a_processor_that_returns_nonsense_is_named(backend: Backend, wrong: np.ndarray) -> None:
    run = generation(backend, Request((1, 2, 3), 6, processors=(lambda text, scores: wrong,)))
    with pytest.raises(ConfigurationError, match="processor"):
        run.step()


def test_an_error_in_a_processor_leaves_a_sequence_that_goes_on(backend: Backend) -> None:
    calls = []

    def third(text: np.ndarray, scores: np.ndarray) -> np.ndarray:
        calls.append(1)
        if len(calls) == 4:
            raise ZeroDivisionError
        return scores

    run = generation(
        backend,
        Request((1, 2, 3), 9, processors=(third,)),
        policy="layerskip:exit_layer=2,speculation_length=3",
    )
    with pytest.raises(ZeroDivisionError):
        list(run)
    assert run.sequences[0].state.speculative == ()
    list(run)
    assert run.sequences[0].generated == by_hand(backend, (1, 2, 3), 9, Sampling())


def options(count: int) -> Options:
    said = dict.fromkeys(NAMES) | {"max_new_tokens": count, "eos_token_id": []}
    return resolve(said, {}, (), 1, 1)


def test_chat_keeps_what_stays_the_same(backend: Backend) -> None:
    chat = Chat(backend)
    first = chat.answer([1, 2, 3], options(4))
    list(first)
    text = [1, 2, 3, *first.sequences[0].generated]
    for prompt, reused in [([*text, 50, 51], 7), ([*text, 60], 7), ([1, 2, 9], 2), ([1, 2, 9], 2), ([8], 0)]:
        answer = chat.answer(prompt, options(3), "layerskip:exit_layer=1")
        list(answer)
        assert chat.reused == reused
        assert answer.sequences[0].generated == by_hand(backend, tuple(prompt), 3, Sampling())


def test_chat_goes_on_after_an_interrupt(backend: Backend) -> None:
    chat = Chat(Interrupted(backend, 3, after=True))  # type: ignore[arg-type]
    answer = chat.answer([1, 2, 3], options(9))
    with pytest.raises(KeyboardInterrupt):
        list(answer)
    prompt = [1, 2, 3, *answer.sequences[0].generated, 70]
    again = chat.answer(prompt, options(2))
    list(again)
    assert chat.reused == 5
    assert again.sequences[0].generated == by_hand(backend, tuple(prompt), 2, Sampling())


def test_chat_grows_and_resets(backend: Backend) -> None:
    chat = Chat(backend)
    list(chat.answer([1, 2], options(2)))
    with pytest.raises(CapacityError, match="256"):
        chat.answer([1] * 250, options(7))
    chat.reset()
    list(chat.answer([1, 2, 3], options(1)))
    assert chat.reused == 0


def test_timing_is_split_at_the_first_token(backend: Backend) -> None:
    run = generation(backend, Request((1, 2, 3), 3))
    run.step()
    assert run.timing.prompt > 0
    assert run.timing.decode == 0
    prompt = run.timing.prompt
    list(run)
    assert run.timing.decode > 0
    assert run.timing.prompt == prompt


def test_tokens_are_plain_integers(backend: Backend) -> None:
    run = generation(backend, Request((1,), 2))
    list(run)
    assert all(type(token) is int for token in run.sequences[0].generated)
    assert not isinstance(run.sequences[0].generated[0], np.integer)
