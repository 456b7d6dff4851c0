"""custom_generate=specee.custom_generate: the model's class stays as it is."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
import transformers

import specee
from specee.integrations.drop_in import accelerated
from tests.integrations.callbacks import Written
from tests.integrations.cases import GREEDY
from tests.integrations.contract import (
    POLICIES,
    padded,
    plain_tokens,
    prompt,
    same,
    see,
    small,
    stop_text,
    tokenizer,
)

OLD = transformers.__version__.startswith("4.")


def _custom(**options: Any) -> dict[str, Any]:
    """What every version of transformers can be told: 4 hands no arguments of ours on."""
    return {"custom_generate": functools.partial(specee.custom_generate, **options)}


# Not through this door: transformers' streamers and stop strings with its own tokenizer.
_CASES = [name for name in GREEDY if "stream" not in name and "string" not in name]


@pytest.mark.parametrize("name", _CASES[::3])
def test_requests_are_alike(name: str) -> None:
    model = small("llama")
    make = GREEDY[name](model)
    stock = see(model, make)
    ours = see(model, make, **_custom(specee_policy=POLICIES[1]))
    same(stock, ours)
    assert ours.loops == 0
    assert ours.warned == []
    assert type(model) is transformers.LlamaForCausalLM


def test_a_streamer_of_its_own() -> None:
    model, theirs, ours = small("llama"), [], []
    stock = model.generate(prompt(12), max_new_tokens=7, streamer=Written(theirs))
    tokens = model.generate(prompt(12), max_new_tokens=7, **_custom(specee_streamer=Written(ours)))
    assert torch.equal(stock, tokens)
    assert [str(value) for value in ours] == [str(value) for value in theirs]


def test_a_streamer_of_its_own_is_ended_on_errors() -> None:
    model, log = small("llama"), []
    with pytest.raises(specee.ConfigurationError, match="specee_seed"):
        model.generate(prompt(12), do_sample=True, **_custom(specee_streamer=Written(log), specee_seed=-3))
    assert log[-1] == "end"


def test_stop_strings_with_a_tokenizer_of_its_own() -> None:
    model, words = small("llama"), tokenizer()
    text = stop_text(plain_tokens(model))
    options: dict[str, Any] = {"input_ids": prompt(12), "max_new_tokens": 30}
    stock = see(model, lambda _: {**options, "tokenizer": words, "stop_strings": text})
    more = {"stop_strings": text, "specee_policy": POLICIES[1]}
    ours = see(model, lambda _: options, **_custom(specee_tokenizer=words, **more))
    same(stock, ours)
    assert stock.output.shape[1] < 42
    without = see(model, lambda _: options, **_custom(**more))
    assert isinstance(without.error, ValueError)


def test_beams_go_to_stock() -> None:
    model = small("llama")
    options = {**padded(12, 4), "max_new_tokens": 6, "num_beams": 3, "pad_token_id": 0}
    stock = see(model, lambda _: options)
    ours = see(model, lambda _: options, custom_generate=specee.custom_generate)
    same(stock, ours)
    assert ours.loops == 1
    assert len(ours.warned) == 1


def test_what_stock_computes_goes_there() -> None:
    model = small("llama")
    model.model.layers[0].register_forward_hook(lambda *_: None)
    options = {"input_ids": prompt(12), "max_new_tokens": 6}
    stock = see(model, lambda _: options)
    ours = see(model, lambda _: options, custom_generate=specee.custom_generate)
    same(stock, ours)
    assert (ours.loops, len(ours.warned)) == (1, 1)


def test_prompt_lookup_is_decoded_by_us() -> None:
    model = small("llama")
    stock = see(model, lambda _: {"input_ids": prompt(12), "max_new_tokens": 6})
    options = {"input_ids": prompt(12), "max_new_tokens": 6, "prompt_lookup_num_tokens": 3}
    ours = see(model, lambda _: options, custom_generate=specee.custom_generate)
    same(stock, ours)
    assert ours.loops == 0


def test_the_engine_is_kept_and_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    model, loads = small("llama"), []
    plain = accelerated.load
    monkeypatch.setattr(accelerated, "load", lambda *a, **k: loads.append(1) or plain(*a, **k))
    for _ in range(2):
        model.generate(prompt(12), max_new_tokens=2, custom_generate=specee.custom_generate)
    assert len(loads) == 1
    specee.restore(model)
    assert accelerated.known(model) is None


def test_an_accelerated_model_takes_it_too() -> None:
    model = small("llama")
    stock = see(model, lambda _: {"input_ids": prompt(12), "max_new_tokens": 6})
    specee.accelerate(model, policy="autoregressive", threads=1)
    ours = see(
        model,
        lambda _: {"input_ids": prompt(12), "max_new_tokens": 6},
        custom_generate=specee.custom_generate,
    )
    same(stock, ours)
    assert ours.loops == 0


@pytest.mark.skipif(OLD, reason="transformers 4 does not hand arguments on")
def test_arguments_of_ours_go_through_generate() -> None:
    model, words, log = small("llama"), tokenizer(), []
    text = stop_text(plain_tokens(model))
    stock = model.generate(prompt(12), max_new_tokens=30, stop_strings=text, tokenizer=words)
    ours = model.generate(
        prompt(12),
        max_new_tokens=30,
        stop_strings=text,
        custom_generate=specee.custom_generate,
        specee_tokenizer=words,
        specee_streamer=Written(log),
        specee_policy=POLICIES[2],
        specee_seed=3,
    )
    assert torch.equal(stock, ours)
    assert log[-1] == "end"
