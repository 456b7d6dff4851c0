"""Several threads on one model, callbacks that generate, weights that change: nobody disturbs anybody."""

from __future__ import annotations

import threading
from typing import Any

import torch
from transformers import LogitsProcessorList

import specee
from tests.integrations.contract import SPECULATIVE, prompt, small


def _answer(model: Any, request: dict[str, Any]) -> Any:
    try:
        return model.generate(**request)
    except Exception as error:
        return type(error)


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
