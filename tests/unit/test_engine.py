"""The generation loop and the chat on a tiny reference model."""

from __future__ import annotations

import numpy as np
import pytest

from specee.backends.protocol import Backend, SequenceState, Work
from specee.chat import Chat
from specee.engine import Generation, Request, reserve
from specee.errors import CapacityError, ConfigurationError
from specee.options import Options
from specee.policies import make_policy
from specee.types import Sampling
from tests.engines import Engine
from tests.random_model import BASE, random_model


@pytest.fixture(scope="module")
def backend() -> Backend:
    return Engine("reference").load(random_model(BASE, seed=5))


def generation(backend: Backend, *requests: Request) -> Generation:
    return Generation(backend, reserve(backend, requests), make_policy("autoregressive"))


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


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("at", [1, 4])
def test_an_interrupt_leaves_a_sequence_that_goes_on(backend: Backend, at: int, after: bool) -> None:
    run = generation(Interrupted(backend, at, after=after), Request((1, 2, 3), 6))  # type: ignore[arg-type]
    with pytest.raises(KeyboardInterrupt):
        list(run)
    assert len(run.sequences[0].generated) == at - 1
    list(run)
    assert run.sequences[0].generated == by_hand(backend, (1, 2, 3), 6, Sampling())


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


def options(count: int) -> Options:
    return Options(count, 0.0, 0, 1.0, (0,), frozenset())


def test_chat_keeps_what_stays_the_same(backend: Backend) -> None:
    chat = Chat(backend)
    first = chat.answer([1, 2, 3], options(4))
    list(first)
    text = [1, 2, 3, *first.sequences[0].generated]
    for prompt, reused in [([*text, 50, 51], 7), ([*text, 60], 7), ([1, 2, 9], 2), ([1, 2, 9], 2), ([8], 0)]:
        answer = chat.answer(prompt, options(3))
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
