"""The generation loop on a tiny reference model."""

from __future__ import annotations

import numpy as np
import pytest

from specee.backends.protocol import Backend, SequenceState
from specee.engine import Request, reserve
from specee.errors import CapacityError, ConfigurationError
from specee.types import Sampling
from tests.unit.runs import by_hand, generation


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(1.0, seed=3), Sampling(0.8, 20, 0.9, 4)])
def test_gives_what_decoding_by_hand_gives(backend: Backend, sampling: Sampling) -> None:
    run = generation(backend, Request((1, 2, 3), 6, sampling))
    steps = list(run)
    assert run.sequences[0].generated == by_hand(backend, (1, 2, 3), 6, sampling)
    assert [token for step in steps for token in step[0]] == run.sequences[0].generated
    assert len(steps[0][0]) == 1, "somebody waits for the first token"
    assert [len(entry.tokens) for entry in run.statistics.rounds()] == [1] * 6
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
