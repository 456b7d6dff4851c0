"""The user's processors and stop checks, under speculation too."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from specee.backends.protocol import Backend
from specee.engine import Request
from specee.errors import ConfigurationError
from specee.types import Sampling
from tests.unit.runs import by_hand, generation


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
