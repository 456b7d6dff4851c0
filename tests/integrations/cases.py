"""Requests of every kind that the contract names, by name: what is decoded by the engine, greedy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers
from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList

from tests.integrations.callbacks import Counting, EndAt, EndWhenSure, InPlace, Neighbours, Noting, Written
from tests.integrations.contract import Make, padded, plain_tokens, prompt, stop_text, tokenizer

Case = Callable[[Any], Make]
"""A model in, what makes its arguments out."""


def _plain(**options: Any) -> Case:
    """One prompt of twelve tokens and these options, which hold no state."""
    return lambda _: lambda _log: {"input_ids": prompt(12), "max_new_tokens": 16, **options}


def _rows(*lengths: int, **options: Any) -> Case:
    return lambda _: lambda _log: {**padded(*lengths), "max_new_tokens": 14, "pad_token_id": 0, **options}


def _config(**options: Any) -> GenerationConfig:
    return GenerationConfig(**options)


def _stops(*places: int, rows: bool = False, **options: Any) -> Case:
    """End-of-text tokens are those that stock has at these places."""

    def case(model: Any) -> Make:
        tokens = plain_tokens(model)
        inputs = padded(12, 5, 9) if rows else {"input_ids": prompt(12)}
        if rows:
            inputs["input_ids"][0] = prompt(12)
        eos = [tokens[place] for place in places]
        return lambda _log: {
            **inputs, "max_new_tokens": 24, "eos_token_id": eos[0] if len(eos) == 1 else eos, **options
        }  # fmt: skip

    return case


def _processors(make: Callable[[list[Any]], list[Any]], *lengths: int, **options: Any) -> Case:
    inputs = padded(*lengths) if lengths else {"input_ids": prompt(12)}
    return lambda _: (
        lambda log: {
            **inputs,
            "max_new_tokens": 12,
            "pad_token_id": 0,
            "logits_processor": LogitsProcessorList(make(log)),
            **options,
        }
    )


def _criterion(*lengths: int, **options: Any) -> Case:
    def case(model: Any) -> Make:
        tokens = plain_tokens(model)
        inputs = padded(*lengths) if lengths else {"input_ids": prompt(12)}
        return lambda log: {
            **inputs,
            "max_new_tokens": 20,
            "pad_token_id": 0,
            "stopping_criteria": StoppingCriteriaList([EndAt(log, [tokens[6], *range(0, 300, 11)])]),
            **options,
        }

    return case


def _strings(*lengths: int, **options: Any) -> Case:
    """Stop strings that stock's text has, in the middle of a token."""

    def case(model: Any) -> Make:
        tokens, words = plain_tokens(model), tokenizer()
        text = stop_text(tokens)
        inputs = padded(*lengths) if lengths else {"input_ids": prompt(12)}
        if lengths:
            inputs["input_ids"][0] = prompt(12)
        return lambda _log: {
            **inputs, "max_new_tokens": 24, "stop_strings": [text, "never"], "tokenizer": words, **options
        }  # fmt: skip

    return case


def _sure() -> StoppingCriteriaList:
    return StoppingCriteriaList([EndWhenSure()])


def _allowed(batch: int, ids: torch.Tensor) -> list[int]:
    return [(int(ids[-1]) + step + batch) % 300 for step in (1, 5, 40, 77)]


ALL = {"return_dict_in_generate": True, "output_scores": True, "output_logits": True}

GREEDY: dict[str, Case] = {
    "plain": _plain(),
    "one token of prompt": lambda _: lambda _log: {"input_ids": torch.tensor([[17]]), "max_new_tokens": 9},
    "no prompt but bos": lambda _: lambda _log: {"max_new_tokens": 9, "bos_token_id": 1},
    "one new token": _plain(max_new_tokens=1),
    "no new token": _plain(max_new_tokens=0),
    "max_length": _plain(max_new_tokens=None, max_length=20),
    "max_length that the prompt fills": _plain(max_new_tokens=None, max_length=12),
    "max_length and max_new_tokens": _plain(max_length=14),
    "neither": _plain(max_new_tokens=None),
    "a configuration": _plain(max_new_tokens=None, generation_config=_config(max_new_tokens=7)),
    "a configuration and more": _plain(
        max_new_tokens=5, generation_config=_config(max_new_tokens=7, num_beams=1)
    ),
    "int32 ids": lambda _: lambda _log: {"input_ids": prompt(12).int(), "max_new_tokens": 8},
    "rows": _rows(12, 12, 12),
    "padded rows": _rows(3, 12, 7),
    "padding found by its token": lambda _: lambda _log: {
        "input_ids": padded(3, 12, 7)["input_ids"], "max_new_tokens": 9, "pad_token_id": 0, "eos_token_id": 2
    },
    "bool mask": lambda _: lambda _log: {
        "input_ids": padded(4, 9)["input_ids"],
        "attention_mask": padded(4, 9)["attention_mask"].bool(),
        "max_new_tokens": 9,
    },
    "many rows": _rows(*range(1, 10)),
    "end of text": _stops(6),
    "end of text at once": _stops(0),
    "several ends of text": _stops(9, 4),
    "rows that end": _stops(5, 8, rows=True, pad_token_id=3),
    "rows that end, padded with the end": _stops(5, rows=True),
    "rows that end, with scores": _stops(3, 8, rows=True, pad_token_id=3, **ALL),
    "rows that end, penalised, with scores": _stops(
        3, 8, rows=True, pad_token_id=3, repetition_penalty=1.4, **ALL
    ),
    "min_new_tokens": _stops(4, min_new_tokens=11),
    "min_length": _stops(4, min_length=20),
    "repetition_penalty": _plain(repetition_penalty=1.3),
    "repetition_penalty under one": _plain(repetition_penalty=0.8),
    "repetition_penalty of padded rows": _rows(3, 12, 7, repetition_penalty=1.5),
    "no_repeat_ngram_size": _plain(no_repeat_ngram_size=2),
    "no_repeat_ngram_size of padded rows": _rows(3, 12, 7, no_repeat_ngram_size=1),
    "bad words": _plain(bad_words_ids=[[5], [9, 10], *[[t] for t in range(20, 160)]]),
    "suppressed tokens": _plain(suppress_tokens=list(range(10, 200))),
    "suppressed at the beginning": _plain(begin_suppress_tokens=list(range(10, 200))),
    "forced end": _plain(forced_eos_token_id=[8, 9]),
    "forced beginning": lambda _: lambda _log: {
        "input_ids": torch.tensor([[17], [18]]), "max_new_tokens": 5, "forced_bos_token_id": 9
    },
    "sequence_bias": _plain(sequence_bias=[[[t], 4.0] for t in range(30, 60)]),
    "exponential_decay_length_penalty": _stops(9, exponential_decay_length_penalty=(3, 1.5)),
    "encoder_repetition_penalty": _plain(encoder_repetition_penalty=1.4),
    "encoder_repetition_penalty of rows": _rows(12, 12, encoder_repetition_penalty=1.4),
    "encoder_no_repeat_ngram_size": _plain(encoder_no_repeat_ngram_size=2),
    "renormalised": _plain(renormalize_logits=True, **ALL),
    "invalid values removed": _plain(remove_invalid_values=True, **ALL),
    "allowed tokens": _plain(prefix_allowed_tokens_fn=_allowed),
    "allowed tokens of rows": _rows(6, 12, prefix_allowed_tokens_fn=_allowed),
    "a processor": _processors(lambda log: [Noting(log)]),
    "a processor and built-in ones": _processors(
        lambda log: [Noting(log)], repetition_penalty=1.2, no_repeat_ngram_size=3, **ALL
    ),
    "a processor of rows": _processors(lambda log: [Noting(log)], 12, 4, 7),
    "a processor that writes": _processors(lambda _: [InPlace()], **ALL),
    "a processor that looks aside": _processors(lambda _: [Neighbours()], 12, 4, 7, **ALL),
    "a processor that remembers": _processors(lambda _: [Counting()]),
    "a processor that remembers, of rows": _processors(lambda _: [Counting()], 5, 9),
    "a built-in processor of the user": _processors(
        lambda _: [transformers.TopKLogitsWarper(3), transformers.NoRepeatNGramLogitsProcessor(2)], 5, 9
    ),
    "a criterion": _criterion(),
    "a criterion and an end of text": _criterion(eos_token_id=list(range(1, 300, 13))),
    "a criterion of rows": _criterion(12, 5, 9, eos_token_id=299),
    "a criterion of rows that do not end": _criterion(12, 5, 9, pad_token_id=None),
    "a criterion that sees scores": lambda _: lambda _log: {
        "input_ids": prompt(12), "max_new_tokens": 20, "stopping_criteria": _sure(), **ALL
    },
    "no time": _plain(max_time=0.0),
    "stop strings": _strings(),
    "stop strings of rows": _strings(12, 5, 9, eos_token_id=299, pad_token_id=0),
    "stop strings of rows that do not end": _strings(12, 5),
    "stop strings without a tokenizer": _strings(tokenizer=None),
    "scores": _plain(**ALL),
    "scores of padded rows": _rows(3, 12, 7, **ALL),
    "scores that nobody gets": _plain(output_scores=True),
    "an output": _plain(return_dict_in_generate=True),
    "an output of rows that end": _stops(3, 8, rows=True, pad_token_id=3, return_dict_in_generate=True),
    "no cache": _plain(use_cache=False, return_dict_in_generate=True),
    "a prompt in pieces": _plain(prefill_chunk_size=5),
    "attentions that nobody gets": _plain(output_hidden_states=True),
    "a streamer": lambda _: lambda log: {
        "input_ids": prompt(12), "max_new_tokens": 9, "streamer": Written(log)
    },
    "a streamer of rows": lambda _: lambda log: {
        **padded(4, 9), "max_new_tokens": 9, "streamer": Written(log)
    },
    "a text streamer": lambda _: lambda _log: {
        "input_ids": prompt(12), "max_new_tokens": 9, "streamer": transformers.TextStreamer(tokenizer())
    },
    "an ending streamer": _stops(5, streamer=transformers.TextStreamer(tokenizer(), skip_prompt=True)),
    "watermarks": _plain(watermarking_config=transformers.WatermarkingConfig(bias=3.0)),
    "watermarks of rows": _rows(5, 9, watermarking_config=transformers.WatermarkingConfig(bias=3.0)),
    "more rows than prompts, which greedy decoding cannot": _plain(num_return_sequences=2),
    "a word that generate does not know": _plain(temprature=1.0),
    "a minus length": _plain(max_new_tokens=-3),
    "a penalty of nothing": _plain(repetition_penalty=0.0),
}  # fmt: skip

SAMPLED: dict[str, Case] = {
    "plain": _plain(**ALL, do_sample=True, top_k=0),
    "temperature": _plain(**ALL, do_sample=True, temperature=0.6),
    "a high temperature": _plain(**ALL, do_sample=True, temperature=2.5, top_k=0),
    "top_k": _plain(**ALL, do_sample=True, top_k=5),
    "top_p": _plain(**ALL, do_sample=True, top_k=0, top_p=0.7),
    "min_p": _plain(**ALL, do_sample=True, top_k=0, min_p=0.1),
    "typical_p": _plain(**ALL, do_sample=True, typical_p=0.6),
    "epsilon and eta": _plain(**ALL, do_sample=True, epsilon_cutoff=0.01, eta_cutoff=0.02),
    "everything": _plain(
        **ALL, do_sample=True, temperature=0.8, top_k=40, top_p=0.9, min_p=0.02, repetition_penalty=1.2
    ),
    "several of one": _plain(**ALL, do_sample=True, num_return_sequences=3),
    "padded rows": _rows(3, 12, 7, **ALL, do_sample=True, top_p=0.8),
    "rows that end": _stops(2, 3, 4, 5, 6, 7, rows=True, pad_token_id=3, do_sample=True, top_k=2, **ALL),
    "a processor": _processors(lambda log: [Noting(log)], do_sample=True, temperature=0.7, **ALL),
    "a processor of rows": _processors(lambda log: [Noting(log)], 5, 9, do_sample=True, **ALL),
    "ngrams": _plain(**ALL, do_sample=True, no_repeat_ngram_size=2, temperature=0.5),
}
