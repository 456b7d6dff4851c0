"""Putting our loop on a model and taking it off; weights that change; what is kept and what is given back."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import specee
from specee.integrations.drop_in import accelerated
from tests.integrations.contract import POLICIES, compare, prompt, same, see, small

REQUEST: dict[str, Any] = {"input_ids": prompt(12), "max_new_tokens": 10}


def _request(_: list[Any]) -> dict[str, Any]:
    return dict(REQUEST)


def test_the_model_itself_is_accelerated_and_restored() -> None:
    model = small("llama")
    plain = type(model)
    assert specee.accelerate(model, threads=1) is model
    assert isinstance(model, plain)
    assert type(model).__name__ == plain.__name__
    assert see(model, _request).loops == 0
    assert specee.restore(model) is model
    assert type(model) is plain
    assert see(model, _request).loops == 1
    specee.restore(model)
    assert type(model) is plain


def test_a_with_statement_ends_it_also_on_an_error() -> None:
    model = small("llama")
    plain = type(model)
    with specee.accelerate(model, threads=1) as fast:
        assert fast is model
        assert see(fast, _request).loops == 0
    assert type(model) is plain
    with pytest.raises(ZeroDivisionError), specee.accelerate(model, threads=1):
        _ = 1 / 0
    assert type(model) is plain
    assert accelerated.known(model) is None


def test_accelerating_again_replaces_the_options() -> None:
    model = small("llama")
    specee.accelerate(model, policy="autoregressive", threads=1)
    specee.accelerate(model, policy="prompt-lookup", threads=1)
    owner = accelerated.known(model)
    assert owner is not None
    assert owner.policy == "prompt-lookup"
    specee.restore(model)
    assert type(model) is transformers.LlamaForCausalLM


@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))], ids=["copy", "pickle"]
)
def test_copies_are_plain_models(duplicate: Any) -> None:
    model = small("llama")
    stock = see(model, _request)
    with specee.accelerate(model, threads=1):
        other = duplicate(model)
        assert type(other) is transformers.LlamaForCausalLM
        same(stock, see(other, _request))
        assert see(model, _request).loops == 0


def test_an_accelerated_model_can_be_saved_and_moved(tmp_path: Path) -> None:
    model = small("llama")
    with specee.accelerate(model, threads=1):
        stock = see(model, _request)
        model.save_pretrained(tmp_path)
        assert model.to("cpu").eval() is model
        model.config.use_cache = True
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    assert type(again) is transformers.LlamaForCausalLM
    again.generation_config.eos_token_id = None
    same(stock, see(again, _request))


def test_forward_is_untouched() -> None:
    model, ids = small("llama"), prompt(9)
    before = model(ids).logits
    with specee.accelerate(model, threads=1):
        assert torch.equal(before, model(ids).logits)


def _step(model: Any) -> None:
    optimiser = torch.optim.SGD(model.parameters(), lr=0.5)
    model(REQUEST["input_ids"], labels=REQUEST["input_ids"]).loss.backward()
    optimiser.step()


def _merged(model: Any) -> None:
    weight = model.model.layers[1].mlp.down_proj.weight
    weight.data += 0.2 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))


def _other_tensor(model: Any) -> None:
    model.model.layers[0].mlp.up_proj.weight = torch.nn.Parameter(
        -model.model.layers[0].mlp.up_proj.weight.data
    )


def _other_data(model: Any) -> None:
    weight = model.lm_head.weight
    weight.data = weight.data.flip(0)


CHANGES = {
    "a step of training": _step,
    "a state dictionary": lambda model: model.load_state_dict(small("llama", seed=5).state_dict()),
    "a merge through .data": _merged,
    "another tensor": _other_tensor,
    "other data": _other_data,
}


@pytest.mark.parametrize("name", CHANGES)
def test_changed_weights_are_noticed(name: str) -> None:
    model = small("llama")
    specee.accelerate(model, policy=POLICIES[1], threads=1)
    before = see(model, _request)
    CHANGES[name](model)
    after = see(model, _request)
    specee.restore(model)
    stock = see(model, _request)
    assert before.loops == after.loops == 0
    same(stock, after)
    assert not torch.equal(before.output, after.output), "the change changes nothing: no test"


def test_weights_that_stay_are_not_taken_over_again(monkeypatch: pytest.MonkeyPatch) -> None:
    model, loads = small("llama"), []
    plain = accelerated.load
    monkeypatch.setattr(accelerated, "load", lambda *a, **k: loads.append(1) or plain(*a, **k))
    with specee.accelerate(model, threads=1):
        for _ in range(3):
            see(model, _request)
        assert len(loads) == 1
        specee.refresh(model)
        see(model, _request)
        see(model, _request)
        assert len(loads) == 2


def test_refresh_sees_what_the_watch_cannot() -> None:
    model = small("llama")
    with specee.accelerate(model, policy="autoregressive", threads=1):
        before = see(model, _request)
        weight = model.lm_head.weight
        seen = set(range(0, weight.numel(), weight.numel() // 64))
        hidden = [at for at in range(weight.numel()) if at not in seen]
        weight.data.view(-1)[hidden] = -weight.data.view(-1)[hidden]
        same(before, see(model, _request))  # unseen, as documented
        specee.refresh(model)
        after = see(model, _request)
    assert not torch.equal(before.output, after.output)
    same(see(model, _request), after)


def test_nothing_is_kept_of_a_model_that_is_gone() -> None:
    model = small("llama")
    specee.accelerate(model, threads=1)
    see(model, _request)
    owner = accelerated.known(model)
    assert owner is not None
    engine, gone = weakref.ref(owner.ready(model)[0]), weakref.ref(model)
    del model, owner
    gc.collect()
    assert gone() is None
    assert engine() is None


def test_restoring_gives_the_engine_back() -> None:
    model = small("llama")
    specee.accelerate(model, threads=1)
    owner = accelerated.known(model)
    assert owner is not None
    engine = weakref.ref(owner.ready(model)[0])
    del owner
    specee.restore(model)
    gc.collect()
    assert engine() is None


def test_weights_of_other_formats_decode() -> None:
    """int8 weights: other tokens perhaps, by our engine all the same."""
    model = small("llama", hidden_size=64, intermediate_size=64, num_attention_heads=4, num_key_value_heads=2)
    with specee.accelerate(model, weights="int8", policy="autoregressive", threads=1):
        ours = see(model, _request)
    assert ours.error is None
    assert ours.loops == 0


def test_bf16_models_decode() -> None:
    model = small("llama").to(torch.bfloat16)
    with specee.accelerate(model, policy="autoregressive", threads=1):
        ours = see(model, _request)
    assert ours.loops == 0
    assert ours.output.shape == (1, 22)


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: specee.accelerate("gpt2"), specee.ConfigurationError),
        (lambda: specee.accelerate(torch.nn.Linear(2, 2)), specee.ConfigurationError),
        (lambda: specee.accelerate(small("llama"), policy="fast"), specee.ConfigurationError),
        (lambda: specee.accelerate(small("llama"), weights="fp8"), specee.ConfigurationError),
        (lambda: specee.accelerate(small("llama"), threads=0), specee.ConfigurationError),
        (lambda: specee.accelerate(small("llama"), weight="fp32"), TypeError),
        (lambda: specee.accelerate(small("llama"), max_context=10**6), specee.CapacityError),
        (lambda: specee.refresh(small("llama")), specee.ConfigurationError),
        (lambda: specee.restore(None), specee.ConfigurationError),
    ],
)
def test_what_cannot_be_accelerated_is_refused(call: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        call()


def test_a_failed_acceleration_leaves_the_model_as_it_was() -> None:
    model = small("llama")
    with pytest.raises(specee.ConfigurationError):
        specee.accelerate(model, weights="fp8")
    assert type(model) is transformers.LlamaForCausalLM
    assert accelerated.known(model) is None


@pytest.mark.parametrize("policy", POLICIES[1:])
def test_drafts_are_accepted_on_the_way(policy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparisons mean something: tokens do leave several at a time."""
    from specee import engine
    from specee import model as model_module

    made: list[engine.Generation] = []

    class Noted(engine.Generation):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            made.append(self)

    monkeypatch.setattr(model_module, "Generation", Noted)
    model = small("llama")
    compare(model, lambda _: {"input_ids": prompt(24), "max_new_tokens": 60}, policy)
    rounds = [entry for outcome in made[0].statistics.outcomes for entry in outcome.rounds]
    assert sum(entry.accepted for entry in rounds) > 5
