"""What docs/transformers.md says of bad inputs: each has its own error, before the engine computes anything.

Those of ``accelerate`` and ``refresh`` are in test_accelerate.py, of ``as_transformers`` in test_clients.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LogitsProcessorList

import specee
from specee.backends import memory
from specee.integrations.drop_in import accelerated
from tests.integrations.callbacks import StopAfter, Written
from tests.integrations.contract import SPECULATIVE, padded, prompt, see, small, tokenizer
from tests.integrations.requests import BAD

OPTIONS: dict[str, Any] = {"max_new_tokens": 6, "pad_token_id": 0}


def _model(**overrides: Any) -> Any:
    return specee.accelerate(small("llama", **overrides), policy=SPECULATIVE, threads=1)


def _refuse_work(model: Any, patch: pytest.MonkeyPatch) -> list[str]:
    """The names of the verbs that the engine is asked for from now on, for which it then fails."""
    engine, _ = accelerated.accelerated(model).ready(model)
    assert engine is not None
    asked: list[str] = []
    for verb in ("advance", "verify", "run_rounds", "draft", "logits", "argmax", "sample"):

        def work(*_: Any, _verb: str = verb, **__: Any) -> Any:
            asked.append(_verb)
            raise AssertionError(f"{_verb} was asked for")

        patch.setattr(engine.backend, verb, work)
    return asked


OURS: dict[str, tuple[str, dict[str, Any]]] = {
    "a negative seed": ("specee_seed", {"do_sample": True, "specee_seed": -1}),
    "a seed that is no number": ("specee_seed", {"do_sample": True, "specee_seed": "7"}),
    "too large a seed": ("specee_seed", {"do_sample": True, "specee_seed": 2**64}),
    "seeds of other rows": ("specee_seed has 3 values for 1", {"do_sample": True, "specee_seed": [1, 2, 3]}),
    "a policy": ("fast", {"specee_policy": "fast"}),
    "a setting of a policy": ("speed", {"specee_policy": "prompt-lookup:speed=9"}),
    "an exit layer": ("exit_layer", {"specee_policy": "layerskip:exit_layer=99"}),
    "a token id": ("900", {"input_ids": torch.tensor([[5, 900]])}),
    "a negative token id": ("-4", {"input_ids": torch.tensor([[5, -4, 7]])}),
}


@pytest.mark.parametrize("streamer", [False, True])
@pytest.mark.parametrize("name", OURS)
def test_what_only_we_refuse(name: str, streamer: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    words, bad = OURS[name]
    model, log = _model(), []
    asked = _refuse_work(model, monkeypatch)
    more = {"streamer": Written(log)} if streamer else {}
    with pytest.raises(specee.ConfigurationError, match=words):
        model.generate(**{"input_ids": prompt(12), **OPTIONS, **bad, **more})
    assert asked == []
    assert log[-1:] == (["end"] if streamer else [])


@pytest.mark.parametrize("case", range(len(BAD)))
def test_bad_requests_of_the_soak_compute_nothing(case: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of transformers among them raise there what they raise here."""
    model = _model()
    asked = _refuse_work(model, monkeypatch)
    request = {**padded(12, 5, 9), **OPTIONS, **BAD[case]}
    with pytest.raises(ValueError, match=r".+") as ours:
        model.generate(**request)
    assert asked == []
    if not isinstance(ours.value, specee.ConfigurationError):
        specee.restore(model)
        with pytest.raises(type(ours.value)):
            model.generate(**request)


def test_the_engine_that_must_not_be_asked_would_notice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: a good request is work."""
    model = _model()
    asked = _refuse_work(model, monkeypatch)
    with pytest.raises(AssertionError):
        model.generate(prompt(12), **OPTIONS)
    assert asked


SCORES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "no token is left": lambda scores: torch.full_like(scores, -float("inf")),
    "one is not a number": lambda scores: scores.index_fill(1, torch.tensor([7]), float("nan")),
    "there are too few": lambda scores: scores[:, :-1],
}


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("name", SCORES)
def test_scores_that_cannot_be_drawn_from(name: str, rows: int) -> None:
    model = _model()
    inputs = padded(12, 5) if rows == 2 else {"input_ids": prompt(12)}
    whole = model.generate(**inputs, **OPTIONS)
    processors = LogitsProcessorList([lambda _, scores: SCORES[name](scores)])
    with pytest.raises(specee.ConfigurationError, match="a processor returned scores"):
        model.generate(**inputs, **OPTIONS, logits_processor=processors)
    assert torch.equal(model.generate(**inputs, **OPTIONS), whole)


CUSTOM: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "stop strings without a tokenizer": ("specee_tokenizer", {}, {"stop_strings": "a"}),
    "a seed": ("specee_seed", {"do_sample": True}, {"specee_seed": -1}),
    "a policy": ("fast", {}, {"specee_policy": "fast"}),
    "a token id": ("900", {"input_ids": torch.tensor([[900]])}, {}),
}


@pytest.mark.parametrize("name", CUSTOM)
def test_what_custom_generate_refuses(name: str) -> None:
    words, options, own = CUSTOM[name]
    model = small("llama")

    def ours(*args: Any, **prepared: Any) -> Any:
        return specee.custom_generate(*args, **own, **prepared)

    with pytest.raises(specee.ConfigurationError, match=words):
        model.generate(**{"input_ids": prompt(12), **OPTIONS, **options}, custom_generate=ours)


def test_custom_generate_names_the_ways_of_decoding_that_it_has() -> None:
    """transformers 5 looks for others on a hub before it comes to us."""
    from specee.integrations.drop_in.call import Asked
    from specee.integrations.drop_in.custom import decode_custom

    class Contrastive:
        def get_generation_mode(self) -> Any:
            return type("Mode", (), {"value": "contrastive_search"})

    prepared = {"logits_processor": [], "stopping_criteria": [], "generation_config": Contrastive()}
    with pytest.raises(specee.ConfigurationError, match=r"contrastive search.*leave custom_generate away"):
        decode_custom(small("llama"), prompt(12), Asked(), None, None, None, prepared)


@pytest.mark.parametrize("rows", [1, 2])
def test_memory_that_is_not_there(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = _model(max_position_embeddings=16384)
    asked = _refuse_work(model, monkeypatch)
    inputs = padded(12, 5) if rows == 2 else {"input_ids": prompt(12)}
    monkeypatch.setattr(memory, "available", lambda: 0)
    with pytest.raises(specee.OutOfMemoryError, match="KV cache"):
        model.generate(**inputs, max_new_tokens=16000, pad_token_id=0)
    assert asked == []
    monkeypatch.undo()
    again = see(model, lambda _: {**inputs, **OPTIONS})
    assert again.error is None
    assert again.loops == 0


def test_a_seed_may_be_of_numpy() -> None:
    model = _model()
    drawn = [
        model.generate(prompt(12), **OPTIONS, do_sample=True, specee_seed=seed) for seed in (7, np.int64(7))
    ]
    assert torch.equal(*drawn)


def test_a_tokenizer_makes_stop_strings_good() -> None:
    """The same request with what it lacked."""
    model = _model()
    output = model.generate(prompt(12), **OPTIONS, stop_strings=["a"], tokenizer=tokenizer())
    assert output.shape[1] > 12
    stopped = model.generate(prompt(12), **OPTIONS, stopping_criteria=[StopAfter(2)])
    assert stopped.shape[1] == 14
