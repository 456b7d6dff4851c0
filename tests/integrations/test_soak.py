"""Requests of all kinds from several threads on one model: each is what it is alone, nothing is left behind.

tests/native/soak_test.cpp does the same without Python, under sanitizers.
"""

from __future__ import annotations

import gc
import threading
from typing import Any

import psutil
import pytest
import torch

import specee
from specee.integrations.drop_in import accelerated
from tests.integrations.contract import SPECULATIVE, small
from tests.integrations.requests import Mixed, mixed

SEED = 20261128


def _answer(model: Any, request: Mixed) -> Any:
    """Tokens, or what was raised."""
    try:
        return model.generate(**request.make())
    except BaseException as error:  # cancellation is none of Exception's
        return error


def _answers(model: Any, work: list[list[Mixed]]) -> list[list[Any]]:
    """Those of a thread for each list, all at the same time."""
    answers: list[list[Any]] = [[] for _ in work]

    def run(thread: int) -> None:
        for request in work[thread]:
            answers[thread].append(_answer(model, request))

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(work))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def _check(isolated: Any, work: list[list[Mixed]], answers: list[list[Any]]) -> int:
    """Errors are those that were to be, and tokens those of an isolated run; how many requests failed."""
    failed = 0
    for requests, own in zip(work, answers, strict=True):
        for request, answer in zip(requests, own, strict=True):
            if request.error is not None:
                assert isinstance(answer, request.error), answer
                failed += 1
                continue
            accelerated.accelerated(isolated).kept.drop()  # nothing of the request before it
            alone = isolated.generate(**{**request.make(), "specee_policy": "autoregressive"})
            assert isinstance(answer, torch.Tensor), answer
            assert torch.equal(answer, alone)
    return failed


def _models(family: str) -> tuple[Any, Any]:
    return tuple(specee.accelerate(small(family), policy=SPECULATIVE, threads=1) for _ in range(2))


def test_requests_of_three_threads_are_what_they_are_alone() -> None:
    print(f"seed {SEED}")
    model, isolated = _models("qwen3_sliding")
    work = [mixed(SEED + thread, 25) for thread in range(3)]
    failed = _check(isolated, work, _answers(model, work))
    assert 10 < failed < 40


@pytest.mark.slow
def test_a_soak_leaves_nothing_behind() -> None:
    """2,000 requests by two threads: no memory is kept after the first fifth of them."""
    print(f"seed {SEED}")
    model, isolated = _models("llama")
    process, sizes, failed = psutil.Process(), [], 0
    for turn in range(10):
        work = [mixed(SEED + 2 * turn + thread, 100) for thread in range(2)]
        failed += _check(isolated, work, _answers(model, work))
        del work
        gc.collect()
        sizes.append(process.memory_info().rss)
    assert 300 < failed < 700
    assert max(sizes[2:]) <= 1.02 * sizes[1], sizes
