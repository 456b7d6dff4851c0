"""Clients that know nothing of us: pipelines, and a chat that streams from a thread."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import transformers
from transformers import TextIteratorStreamer

import specee
from tests.integrations.contract import SPECULATIVE, counting_loops, small, tokenizer
from tests.tiny_models import CHAT_TEMPLATE, tiny_folder

REQUESTS: dict[str, dict[str, Any]] = {
    "a text": {"text_inputs": "The quick", "max_new_tokens": 12},
    "texts": {"text_inputs": ["The quick", "In 1969 there were", "def"], "max_new_tokens": 12},
    "a batch": {"text_inputs": ["The quick", "In 1969 there were"], "max_new_tokens": 9, "batch_size": 2},
    "a chat": {"text_inputs": [{"role": "user", "content": "Say it."}], "max_new_tokens": 12},
    "new text only": {"text_inputs": "It isn't", "max_new_tokens": 9, "return_full_text": False},
    "ids": {"text_inputs": "It isn't", "max_new_tokens": 9, "return_tensors": True},
    "processors": {"text_inputs": "The quick", "max_new_tokens": 12, "no_repeat_ngram_size": 1},
    "an end": {"text_inputs": "The quick", "max_new_tokens": 40, "eos_token_id": list(range(3, 300, 9))},
}


def _words() -> Any:
    words = tokenizer()
    words.chat_template = CHAT_TEMPLATE
    return words


@pytest.mark.parametrize("name", REQUESTS)
def test_a_pipeline_answers_alike(name: str) -> None:
    model = small("llama")
    client = transformers.pipeline("text-generation", model=model, tokenizer=_words(), device="cpu")
    request = {"do_sample": False, **REQUESTS[name]}
    stock = client(**request)
    with specee.accelerate(model, policy=SPECULATIVE, threads=1), counting_loops() as loops:
        assert client(**request) == stock
        fresh = transformers.pipeline("text-generation", model=model, tokenizer=_words(), device="cpu")
        assert fresh(**request) == stock
    assert loops == [0]


@pytest.mark.parametrize("name", REQUESTS)
def test_a_pipeline_of_our_own_model_answers_alike(name: str, tmp_path: Path) -> None:
    folder = tiny_folder("qwen3", tmp_path, seed=3)
    loaded = specee.load(folder, threads=1)
    model, words = specee.as_transformers(loaded, policy=SPECULATIVE), specee.as_tokenizer(loaded)
    ours = transformers.pipeline("text-generation", model=model, tokenizer=words, device="cpu")
    plain = transformers.AutoModelForCausalLM.from_pretrained(folder)
    stock = transformers.pipeline("text-generation", model=plain, tokenizer=words, device="cpu")
    request = {"do_sample": False, **REQUESTS[name]}
    assert ours(**request) == stock(**request)


def test_our_own_model_knows_its_tokenizer_for_stop_strings(tmp_path: Path) -> None:
    loaded = specee.load(tiny_folder("llama", tmp_path, seed=3), threads=1)
    model, words = specee.as_transformers(loaded), specee.as_tokenizer(loaded)
    client = transformers.pipeline("text-generation", model=model, tokenizer=words, device="cpu")
    whole = client("The quick", do_sample=False, max_new_tokens=30, return_full_text=False)
    text = whole[0]["generated_text"]
    stop = next(character for character in text[4:] if character.isascii() and character.isprintable())
    short = client(
        "The quick", do_sample=False, max_new_tokens=30, return_full_text=False, stop_strings=[stop]
    )[0]["generated_text"]
    assert stop in short
    assert len(short) < len(text)
    assert text.startswith(short)


def test_our_own_model_says_what_it_cannot(tmp_path: Path) -> None:
    loaded = specee.load(tiny_folder("llama", tmp_path, seed=3), threads=1)
    model, words = specee.as_transformers(loaded), specee.as_tokenizer(loaded)
    inputs = words(["The", "The quick brown"], return_tensors="pt", padding=True)
    with pytest.raises(specee.UnsupportedModelError, match=r"beam search.*specee\.accelerate"):
        model.generate(**inputs, num_beams=2)
    assert model.generate(inputs["input_ids"][1:], max_new_tokens=3).shape[0] == 1


def _chat(model: Any, words: Any, turns: int) -> list[str]:
    """A chat loop as the documentation of transformers has it."""
    history: list[dict[str, str]] = []
    answers = []
    for turn in range(turns):
        history.append({"role": "user", "content": f"Say it {turn}"})
        inputs = words.apply_chat_template(
            history, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        streamer = TextIteratorStreamer(words, skip_prompt=True, skip_special_tokens=True, timeout=60)
        thread = threading.Thread(
            target=model.generate, kwargs={**inputs, "streamer": streamer, "max_new_tokens": 15}
        )
        thread.start()
        answers.append("".join(streamer))
        thread.join()
        history.append({"role": "assistant", "content": answers[-1]})
    return answers


def test_a_chat_streams_from_a_thread() -> None:
    model, words = small("qwen2"), _words()
    stock = _chat(model, words, 3)
    with specee.accelerate(model, policy=SPECULATIVE, threads=1), counting_loops() as loops:
        assert _chat(model, words, 3) == stock
    assert loops == [0]
