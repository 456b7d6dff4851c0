"""What the engine does not do goes through transformers' own loop: with one warning, and the same result."""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers

import specee
from tests.integrations.cases import ALL
from tests.integrations.contract import cache_of, compare, counting_loops, padded, prompt, same, see, small


def _is_left_alone(model: Any, reason: str, **options: Any) -> None:
    """Two requests: both by stock's loop, one warning with the reason."""
    options = {"input_ids": prompt(12), "max_new_tokens": 6, **options}
    stock = see(model, lambda _: dict(options))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        specee.accelerate(model, policy="autoregressive", threads=1)
    first = see(model, lambda _: dict(options))
    again = see(model, lambda _: dict(options))
    specee.restore(model)
    early = [str(one.message) for one in told if one.category is specee.FallbackWarning]
    (text,) = early + first.warned + again.warned
    assert re.search(reason, text)
    assert stock.loops == first.loops == again.loops > 0
    assert stock.error is None
    same(stock, first)
    same(stock, again)


CALLS: dict[str, tuple[str, dict[str, Any]]] = {
    "beams": ("beam search", {"num_beams": 3}),
    "sampled beams": ("beam search", {"num_beams": 3, "do_sample": True}),
    "assisted": ("assisted decoding", {"prompt_lookup_num_tokens": 3, "eos_token_id": 299}),
    "guidance": ("guidance", {"guidance_scale": 1.5}),
    "hidden states": ("hidden states", {"output_hidden_states": True, **ALL}),
    "attentions": ("attentions", {"output_attentions": True, **ALL}),
    "a static cache": ("StaticCache", {"cache_implementation": "static"}),
    "a gap in the mask": (
        "0 right of a 1",
        {"attention_mask": torch.tensor([[1, 1, 0, *[1] * 9]])},
    ),
    "padding on the right": ("0 right of a 1", {"attention_mask": torch.tensor([[*[1] * 9, 0, 0, 0]])}),
    "a long text": ("512", {"max_length": 520, "max_new_tokens": None, "eos_token_id": list(range(150))}),
    "positions": ("position_ids", {"position_ids": torch.arange(12)[None] + 5}),
}


@pytest.mark.parametrize("name", CALLS)
def test_calls_that_stock_answers(name: str) -> None:
    reason, options = CALLS[name]
    if options.get("do_sample"):
        torch.manual_seed(5)
        model = small("llama")
        stock = see(model, lambda _: {"input_ids": prompt(12), "max_new_tokens": 6, **options})
        specee.accelerate(model, policy="autoregressive", threads=1)
        torch.manual_seed(5)
        ours = see(model, lambda _: {"input_ids": prompt(12), "max_new_tokens": 6, **options})
        same(stock, ours)
        assert any(reason in text for text in ours.warned)
        return
    _is_left_alone(small("llama"), reason, **options)


def test_embeddings_go_to_stock() -> None:
    model = small("llama")
    embeds = model.model.embed_tokens(prompt(12)).detach()
    _is_left_alone(model, "inputs_embeds", input_ids=None, inputs_embeds=embeds)


@pytest.mark.parametrize("shape", [(1, 0), (0, 4)])
def test_nothing_to_go_on_from_goes_to_stock(shape: tuple[int, int]) -> None:
    """transformers has no answer either: its own error."""
    model, options = small("llama"), {"input_ids": torch.zeros(shape, dtype=torch.long), "max_new_tokens": 3}
    stock = see(model, lambda _: options)
    specee.accelerate(model, policy="autoregressive", threads=1)
    ours = see(model, lambda _: options)
    assert stock.error is not None
    same(stock, ours)
    assert "empty" in ours.warned[0]


# Ways of decoding that transformers itself has given up, or loads from elsewhere, by version.
GONE: dict[str, dict[str, Any]] = {
    "contrastive": {"penalty_alpha": 0.6, "top_k": 4},
    "groups of beams": {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.5},
    "constrained": {"num_beams": 3, "force_words_ids": [[[5, 6]]]},
    "DoLa": {"dola_layers": "low"},
}


@pytest.mark.parametrize("name", GONE)
def test_other_ways_of_decoding_are_never_replaced(name: str) -> None:
    """The same answer by a loop of transformers, or the same refusal: not greedy decoding of ours."""
    model, options = small("llama"), {"input_ids": prompt(12), "max_new_tokens": 6, **GONE[name]}
    stock = see(model, lambda _: options)
    specee.accelerate(model, policy="autoregressive", threads=1)
    ours = see(model, lambda _: options)
    same(stock, ours)
    assert ours.loops == stock.loops
    assert stock.error is not None or ours.warned


def test_an_assistant_goes_to_stock() -> None:
    model = small("llama")
    _is_left_alone(model, "assisted decoding", assistant_model=small("llama", seed=1))


def test_an_accelerated_assistant_drafts_with_stock() -> None:
    model, assistant = small("llama"), small("llama", seed=1)
    options = {
        "input_ids": prompt(12),
        "max_new_tokens": 6,
        "eos_token_id": 299,
        "assistant_model": assistant,
    }
    stock = see(model, lambda _: dict(options))
    with specee.accelerate(assistant, policy="autoregressive", threads=1):
        ours = see(model, lambda _: dict(options))
    same(stock, ours)
    assert any("assisted" in text for text in ours.warned)


def _cache(model: Any, ids: torch.Tensor) -> Any:
    with torch.no_grad():
        output = model(ids[:, :-1], use_cache=True)
    return cache_of(output)


def test_a_cache_with_something_in_it_goes_to_stock() -> None:
    model = small("llama")
    name = "past_key_values" if transformers.__version__.startswith("4") else "cache"
    ids = prompt(12)
    _, ours = compare(
        model,
        lambda _: {"input_ids": ids, "max_new_tokens": 6, name: _cache(model, ids)},
        "autoregressive",
        fallback=True,
    )
    assert "cache" in ours.warned[0]


class Adapted(torch.nn.Linear):
    """What an adapter library puts in the place of a layer."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 - as in torch
        return super().forward(input) + 0.3 * input[..., : self.out_features]


def _adapt(model: Any) -> None:
    old = model.model.layers[0].self_attn.q_proj
    new = Adapted(old.in_features, old.out_features, bias=False)
    new.weight = old.weight
    model.model.layers[0].self_attn.q_proj = new


def _hook(model: Any) -> None:
    model.model.layers[0].mlp.register_forward_hook(lambda _module, _inputs, output: output * 0.5)


def _pre_hook(model: Any) -> None:
    model.model.layers[0].mlp.register_forward_pre_hook(lambda _module, inputs: (inputs[0] * 0.5,))


def _new_forward(model: Any) -> None:
    mlp = model.model.layers[0].mlp
    plain = mlp.forward
    mlp.forward = lambda states: plain(states) * 0.5


def _quantised(model: Any) -> None:
    model.is_quantized = True


def _quantised_on_disk(model: Any) -> None:
    model.config.quantization_config = {"quant_method": "awq", "bits": 4}


def _spread(model: Any) -> None:
    model.hf_device_map = {"model.embed_tokens": "cpu", "model.layers.0": "disk"}


MODELS: dict[str, tuple[str, Callable[[Any], None]]] = {
    "an adapter": (r"layers\.0\.self_attn\.q_proj is a Adapted", _adapt),
    "a hook": (r"layers\.0\.mlp has a forward hook", _hook),
    "a hook before": (r"layers\.0\.mlp has a forward hook", _pre_hook),
    "another forward": (r"forward of model\.layers\.0\.mlp", _new_forward),
    "quantised": ("quantised", _quantised),
    "quantised as its configuration says": ("quantised", _quantised_on_disk),
    "spread over devices": ("spread over devices", _spread),
}


@pytest.mark.parametrize("name", MODELS)
def test_models_that_stock_computes(name: str) -> None:
    reason, change = MODELS[name]
    model = small("llama")
    change(model)
    _is_left_alone(model, reason)


@pytest.mark.parametrize("name", ["an adapter", "a hook", "another forward"])
def test_a_change_after_acceleration_is_noticed(name: str) -> None:
    _, change = MODELS[name]
    model = small("llama")
    specee.accelerate(model, policy="autoregressive", threads=1)
    before = see(model, lambda _: {"input_ids": prompt(12), "max_new_tokens": 6})
    change(model)
    after = see(model, lambda _: {"input_ids": prompt(12), "max_new_tokens": 6})
    specee.restore(model)
    stock = see(model, lambda _: {"input_ids": prompt(12), "max_new_tokens": 6})
    assert before.loops == 0
    assert after.loops == 1
    assert len(after.warned) == 1
    same(stock, after)
    assert not torch.equal(before.output, stock.output), "the change changes nothing: no test"


def test_a_model_in_training_with_dropout_is_left_alone() -> None:
    model = small("llama", attention_dropout=0.5)
    model.train()
    with pytest.warns(specee.FallbackWarning, match="training"):
        specee.accelerate(model, threads=1)
    model.eval()
    assert see(model, lambda _: {"input_ids": prompt(12), "max_new_tokens": 6}).loops == 0


def test_an_unknown_architecture_is_left_alone() -> None:
    sizes = {"n_layer": 2, "n_head": 2, "n_embd": 16, "vocab_size": 300, "n_positions": 64}
    config = transformers.GPT2Config(**sizes, bos_token_id=1, eos_token_id=2)
    model = transformers.GPT2LMHeadModel(config).eval()
    _is_left_alone(model, "GPT2LMHeadModel.*not supported", pad_token_id=0)


def test_an_encoder_decoder_is_left_alone() -> None:
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2, "vocab_size": 300}
    config = transformers.T5Config(**sizes, decoder_start_token_id=0, pad_token_id=0, eos_token_id=1)
    model = transformers.T5ForConditionalGeneration(config).eval()
    _is_left_alone(model, "encoder-decoder")


class OwnLoop(transformers.LlamaForCausalLM):
    """A class whose users count on its own way of decoding."""

    def _sample(self, input_ids: torch.Tensor, **prepared: Any) -> torch.Tensor:
        return torch.cat([input_ids, torch.full((len(input_ids), 3), 9)], dim=1)


class OwnForward(transformers.LlamaForCausalLM):
    """A class that computes something else."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        output = super().forward(*args, **kwargs)
        output.logits = output.logits.roll(1, dims=-1)
        return output


@pytest.mark.parametrize(
    ("kind", "reason"), [(OwnLoop, "a decoding loop of its own"), (OwnForward, "the model is a OwnForward")]
)
def test_a_class_of_the_user_is_left_alone(kind: Any, reason: str) -> None:
    plain = small("llama")
    model = kind(plain.config).eval()
    model.load_state_dict(plain.state_dict())
    model.generation_config = copy.deepcopy(plain.generation_config)
    options = {"input_ids": prompt(12), "max_new_tokens": 6}
    stock = see(model, lambda _: dict(options))
    with pytest.warns(specee.FallbackWarning, match=reason):
        specee.accelerate(model, threads=1)
    same(stock, see(model, lambda _: dict(options)))


def test_a_subclass_that_computes_alike_is_accelerated() -> None:
    class Named(transformers.LlamaForCausalLM):
        pass

    plain = small("llama")
    model = Named(plain.config).eval()
    model.load_state_dict(plain.state_dict())
    model.generation_config = copy.deepcopy(plain.generation_config)
    compare(model, lambda _: {"input_ids": prompt(12), "max_new_tokens": 6}, "autoregressive")


def test_the_spy_sees_stock() -> None:
    """Negative control: a loop that ran is counted, so a count of none says something."""
    with counting_loops() as count:
        small("llama").generate(prompt(5), max_new_tokens=2)
    assert count == [1]


def test_a_comparison_can_fail() -> None:
    """Negative control: other weights, other tokens."""
    model, other = small("llama"), small("llama", seed=1)
    make = lambda _: {**padded(3, 9), "max_new_tokens": 9, "pad_token_id": 0, **ALL}  # noqa: E731
    with pytest.raises(AssertionError):
        same(see(model, make), see(other, make))
