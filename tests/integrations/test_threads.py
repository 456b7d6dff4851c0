"""Several threads on one model, callbacks that fail, weights that change: nobody disturbs anybody."""

from __future__ import annotations

import random
import threading
from typing import Any

import pytest
import torch
from transformers import LogitsProcessorList

import specee
from tests.integrations.callbacks import Failing, Noting
from tests.integrations.contract import POLICIES, SPECULATIVE, padded, prompt, small


def _requests(seed: int, count: int) -> list[dict[str, Any]]:
    """Requests of all kinds, some of which fail."""
    chance = random.Random(seed)
    made = []
    for index in range(count):
        rows = [chance.randint(1, 20) for _ in range(chance.randint(1, 3))]
        request: dict[str, Any] = {
            **padded(*rows),
            "max_new_tokens": chance.randint(1, 25),
            "pad_token_id": 0,
        }
        request["specee_policy"] = chance.choice(POLICIES)
        if chance.random() < 0.5:
            request |= {"do_sample": True, "specee_seed": index, "top_k": chance.choice([0, 3, 50])}
        kind = chance.randrange(6)
        if kind == 0:
            request["max_new_tokens"] = -1
        elif kind == 1:
            request["logits_processor"] = LogitsProcessorList([Failing(max(rows) + 2, KeyError("mine"))])
        elif kind == 2:
            request["logits_processor"] = LogitsProcessorList([Noting([])])
        elif kind == 3:
            request["repetition_penalty"] = 1.3
        made.append(request)
    return made


def _answer(model: Any, request: dict[str, Any]) -> Any:
    try:
        return model.generate(**request)
    except Exception as error:
        return type(error)


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return torch.equal(one, other)
    return one is other


def test_requests_of_three_threads_are_what_they_are_alone() -> None:
    seed = 20261128
    print(f"seed {seed}")
    model = specee.accelerate(small("qwen3_sliding"), policy=SPECULATIVE, threads=1)
    work = [_requests(seed + thread, 25) for thread in range(3)]
    alone = [[_answer(model, request) for request in requests] for requests in work]
    together: list[list[Any]] = [[] for _ in work]

    def run(thread: int) -> None:
        for request in work[thread]:
            together[thread].append(_answer(model, request))

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(work))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [len(own) for own in together] == [25, 25, 25]
    for one, other in zip(sum(alone, []), sum(together, []), strict=True):  # noqa: RUF017
        assert _equal(one, other), (one, other)
    failed = [answer for answer in sum(alone, []) if not isinstance(answer, torch.Tensor)]  # noqa: RUF017
    assert {KeyError, ValueError} <= {*failed, *(base for kind in failed for base in kind.__mro__)}
    assert len(failed) < 45


def test_weights_may_change_between_requests_of_two_threads() -> None:
    """Who is under way ends in peace; who comes after the change has the new weights."""
    model = small("llama")
    other = small("llama", seed=5).state_dict()
    options: dict[str, Any] = {"input_ids": prompt(12), "max_new_tokens": 30}
    first = model.generate(**options)
    specee.accelerate(model, policy="autoregressive", threads=1)
    answers: list[Any] = []

    def run() -> None:
        for _ in range(15):
            answers.append(_answer(model, options))

    thread = threading.Thread(target=run)
    thread.start()
    model.generate(**options)
    model.load_state_dict(other)
    thread.join()
    after = model.generate(**options)
    specee.restore(model)
    second = model.generate(**options)
    assert not torch.equal(first, second)
    assert torch.equal(after, second)
    # While tensors are being written an engine may be made of some of each.
    assert [answer.shape for answer in answers] == [first.shape] * 15


def test_a_policy_object_is_not_shared() -> None:
    from specee.policies import LayerSkipAdaptive

    model = specee.accelerate(small("llama"), policy=LayerSkipAdaptive(exit_layer=1), threads=1)
    options: dict[str, Any] = {"input_ids": prompt(12), "max_new_tokens": 40}
    alone = model.generate(**options)
    answers: list[Any] = []
    threads = [threading.Thread(target=lambda: answers.append(_answer(model, options))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 3
    assert all(torch.equal(alone, answer) for answer in answers)


def test_a_callback_may_generate_itself() -> None:
    model = specee.accelerate(small("llama"), policy=SPECULATIVE, threads=1)
    inner = model.generate(prompt(6), max_new_tokens=5)

    class Nested:
        def __call__(self, input_ids: Any, scores: Any) -> Any:
            assert torch.equal(model.generate(prompt(6), max_new_tokens=5), inner)
            return scores

    plain = model.generate(prompt(12), max_new_tokens=5)
    nested = model.generate(prompt(12), max_new_tokens=5, logits_processor=LogitsProcessorList([Nested()]))
    assert torch.equal(plain, nested)


@pytest.mark.slow
def test_a_soak_leaves_nothing_behind() -> None:
    """2,000 requests by two threads, a third of which fail: memory stays, answers are right."""
    import gc

    import psutil

    model = specee.accelerate(small("llama"), policy=SPECULATIVE, threads=1)
    process, sizes = psutil.Process(), []

    def run(seed: int, count: int) -> None:
        for request in _requests(seed, count):
            first = _answer(model, request)
            if "logits_processor" not in request:
                assert _equal(first, _answer(model, request))

    for turn in range(5):
        threads = [threading.Thread(target=run, args=(100 * turn + own, 200)) for own in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        gc.collect()
        sizes.append(process.memory_info().rss)
    assert sizes[-1] < sizes[1] * 1.02, sizes
