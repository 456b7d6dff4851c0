"""One request through transformers' own generate and through ours, and all that can be seen of either."""

from __future__ import annotations

import contextlib
import copy
import functools
import io
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
import transformers

import specee
from tests.tiny_models import random_prompt, tiny_model, tiny_tokenizer

SPECULATIVE = "prompt-lookup:speculation_length=4,shortest_ngram=1"
POLICIES = ("autoregressive", "layerskip:exit_layer=1,speculation_length=3", SPECULATIVE)
TOLERANCE = 1e-3  # of scores; logits of the tiny models spread over some ten units


def small(family: str, seed: int = 0, **overrides: Any) -> Any:
    """A tiny fp32 model whose texts end at no token unless a test says so.

    Its later layers say little, so that the first one often drafts right, and texts repeat themselves.
    """
    model = tiny_model(family, seed=seed, **overrides)
    for layer in model.model.layers[1:]:
        layer.self_attn.o_proj.weight.data *= 0.1
        layer.mlp.down_proj.weight.data *= 0.1
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = None
    return model


def tokenizer() -> Any:
    """transformers' wrapper of the tiny models' tokenizer."""
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tiny_tokenizer(),
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        padding_side="left",
        model_input_names=["input_ids", "attention_mask"],
    )


def prompt(length: int, seed: int = 1) -> torch.Tensor:
    """(1, length) ids; the second half repeats the first, so that there is something to look up."""
    half = random_prompt(seed, (length + 1) // 2)
    return torch.tensor([(half + half)[:length]])


def padded(*lengths: int) -> dict[str, torch.Tensor]:
    """Prompts of these lengths, padded on the left with token 0."""
    width = max(lengths)
    ids = torch.zeros((len(lengths), width), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, length in enumerate(lengths):
        ids[row, width - length :] = prompt(length, seed=row + 11)
        mask[row, width - length :] = 1
    return {"input_ids": ids, "attention_mask": mask}


@dataclass
class Seen:
    """What a request gave: an output or an error, and what callbacks noted in ``log``."""

    output: Any = None
    error: BaseException | None = None
    log: list[Any] = field(default_factory=list)
    printed: str = ""
    loops: int = 0
    """How often transformers' own loop ran."""
    warned: list[str] = field(default_factory=list)


Make = Callable[[list[Any]], dict[str, Any]]
"""Arguments of generate, callbacks made anew; they note what they see in the list."""


@contextlib.contextmanager
def counting_loops() -> Iterator[list[int]]:
    """Counts runs of transformers' own loops, whoever starts them."""
    count = [0]
    names = [
        name
        for name in ("_sample", "_beam_search", "_assisted_decoding")
        if hasattr(transformers.GenerationMixin, name)
    ]
    with pytest.MonkeyPatch.context() as patch:
        for name in names:
            plain = getattr(transformers.GenerationMixin, name)

            @functools.wraps(plain)  # transformers looks at its signature
            def spy(*args: Any, _plain: Any = plain, **kwargs: Any) -> Any:
                count[0] += 1
                return _plain(*args, **kwargs)

            patch.setattr(transformers.GenerationMixin, name, spy)
        yield count


def see(model: Any, make: Make, **more: Any) -> Seen:
    """Run one request on ``model`` as it is."""
    seen = Seen()
    text = io.StringIO()
    with (
        counting_loops() as loops,
        warnings.catch_warnings(record=True) as caught,
        contextlib.redirect_stdout(text),
    ):
        warnings.simplefilter("always")
        try:
            seen.output = model.generate(**make(seen.log), **more)
        except Exception as error:
            seen.error = error
    seen.loops, seen.printed = loops[0], text.getvalue()
    seen.warned = [str(one.message) for one in caught if one.category is specee.FallbackWarning]
    return seen


def compare(model: Any, make: Make, policy: str, *, fallback: bool = False) -> tuple[Seen, Seen]:
    """The same request through stock and ours: everything that can be seen is alike."""
    stock = see(model, make)
    with specee.accelerate(model, policy=policy, threads=1):
        ours = see(model, make)
    same(stock, ours)
    if ours.error is None:
        assert bool(ours.loops) is fallback, "not decoded by whom it should be"
        assert bool(ours.warned) is fallback, ours.warned
    return stock, ours


def compare_sampled(model: Any, make: Make, policy: str, seed: int) -> tuple[Seen, Seen]:
    """Ours first; then stock, whose draws are given our tokens: scores must be alike, and tokens possible."""
    with specee.accelerate(model, policy=policy, threads=1):
        ours = see(model, make, specee_seed=seed)
        again = see(model, make, specee_seed=seed)
    assert ours.error is None, ours.error
    assert not ours.loops
    assert not ours.warned
    same(ours, again)
    width = ours.output.sequences.shape[1] - len(ours.output.scores)
    columns = iter(ours.output.sequences[:, width:].unbind(1))
    eos = torch.tensor(make([]).get("eos_token_id") or [])
    over = torch.zeros(len(ours.output.sequences), dtype=torch.bool)

    def given(probabilities: torch.Tensor, num_samples: int) -> torch.Tensor:
        tokens = next(columns)[:, None]
        possible = (probabilities.gather(1, tokens) > 0)[:, 0]
        assert (possible | over).all(), "a token that cannot be drawn"
        over.logical_or_(torch.isin(tokens[:, 0], eos))
        return tokens

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "multinomial", given)
        stock = see(model, make)
    same(stock, ours)
    return stock, ours


def same(one: Seen, other: Seen) -> None:
    """Outputs, errors, logs and prints are alike; scores within :data:`TOLERANCE`."""
    assert (one.error is None) == (other.error is None), (one.error, other.error)
    if one.error is not None and other.error is not None:
        assert isinstance(other.error, type(one.error)), (one.error, other.error)
    else:
        alike(one.output, other.output)
    alike(one.log, other.log)
    assert one.printed == other.printed


def alike(one: Any, other: Any) -> None:
    """Equal whole numbers and texts, floats within :data:`TOLERANCE`, in any nesting."""
    if isinstance(one, torch.Tensor):
        assert one.shape == other.shape
        assert one.dtype == other.dtype
        if one.is_floating_point():
            assert torch.equal(torch.isinf(one), torch.isinf(other))
            finite = torch.isfinite(one)
            assert torch.allclose(one[finite], other[finite], rtol=0, atol=TOLERANCE)
        else:
            assert torch.equal(one, other), (one, other)
    elif isinstance(one, transformers.utils.ModelOutput):
        assert list(one.keys()) == list(other.keys())
        for key in one:
            alike(one[key], other[key])
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other)
        for left, right in zip(one, other, strict=True):
            alike(left, right)
    elif isinstance(one, transformers.Cache):
        assert one.get_seq_length() == other.get_seq_length()
        assert len(one.layers) == len(other.layers)
    else:
        assert one == other


def cache_of(output: Any) -> Any:
    """Keys and values of an output, under the name that this transformers has for them."""
    return output["cache"] if "cache" in output else output["past_key_values"]


def stop_text(tokens: list[int]) -> str:
    """What some token in the middle says, if it is text: others are bytes of characters."""
    words = tokenizer()
    texts = [words.decode([token]) for token in tokens[3:]]
    return next(text for text in texts if text and "\ufffd" not in text)


def plain_tokens(model: Any, new: int = 24, **inputs: Any) -> list[int]:
    """What stock generates first, to choose stops from."""
    ids = inputs.pop("input_ids", prompt(12))
    output = copy.deepcopy(model).generate(ids, max_new_tokens=new, do_sample=False, **inputs)
    tokens: list[int] = output[0, ids.shape[1] :].tolist()
    return tokens
