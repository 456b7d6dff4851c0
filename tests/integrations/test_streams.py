"""Streamers get tokens as soon as they are accepted, and are ended whatever happens."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
import torch
import transformers
from transformers import LogitsProcessorList, TextIteratorStreamer

import specee
from tests.integrations.callbacks import Failing, Written
from tests.integrations.contract import SPECULATIVE, padded, prompt, see, small, tokenizer

OPTIONS: dict[str, Any] = {"max_new_tokens": 20}


@pytest.fixture
def model() -> Any:
    return specee.accelerate(small("llama"), policy=SPECULATIVE, threads=1)


def test_a_thread_reads_while_another_generates(model: Any) -> None:
    words = tokenizer()
    whole = words.decode(model.generate(prompt(12), **OPTIONS)[0, 12:])
    streamer = TextIteratorStreamer(words, skip_prompt=True, timeout=60)
    thread = threading.Thread(
        target=model.generate, kwargs={"input_ids": prompt(12), "streamer": streamer, **OPTIONS}
    )
    thread.start()
    pieces = list(streamer)
    thread.join()
    assert "".join(pieces) == whole
    assert len(pieces) > 1


@pytest.mark.skipif(
    not hasattr(transformers, "AsyncTextIteratorStreamer") or not hasattr(asyncio, "timeout"),
    reason="needs Python 3.11",
)
def test_an_asynchronous_reader(model: Any) -> None:
    words = tokenizer()
    whole = words.decode(model.generate(prompt(12), **OPTIONS)[0, 12:])

    async def read() -> str:
        streamer = transformers.AsyncTextIteratorStreamer(words, skip_prompt=True, timeout=60)
        work = asyncio.to_thread(model.generate, prompt(12), streamer=streamer, **OPTIONS)
        task = asyncio.ensure_future(work)
        text = "".join([piece async for piece in streamer])
        await task
        return text

    assert asyncio.run(read()) == whole


def test_tokens_leave_before_the_text_is_over(model: Any) -> None:
    """The processor of the third token finds that the streamer has had the first two."""
    log: list[Any] = []

    class Look(transformers.LogitsProcessor):
        seen: list[int] = []  # noqa: RUF012 - one instance

        def __call__(self, input_ids: Any, scores: Any) -> Any:
            self.seen.append(sum(value.numel() for value in log) - 12)
            return scores

    look = Look()
    model.generate(
        prompt(12), streamer=Written(log), logits_processor=LogitsProcessorList([look]), max_new_tokens=12,
        specee_policy="autoregressive",
    )  # fmt: skip
    assert look.seen == list(range(12))


class Stop(BaseException):
    """As KeyboardInterrupt: nobody's error."""


@pytest.mark.parametrize("error", [KeyError("mine"), Stop(), KeyboardInterrupt()])
@pytest.mark.parametrize("rows", [1, 2])
def test_an_error_of_a_callback_ends_the_streamer(model: Any, error: BaseException, rows: int) -> None:
    log: list[Any] = []
    inputs = padded(12, 5) if rows == 2 else {"input_ids": prompt(12)}
    processors = LogitsProcessorList([Failing(15, error)])
    with pytest.raises(type(error)) as raised:
        model.generate(**inputs, streamer=Written(log), logits_processor=processors, **OPTIONS)
    assert raised.value is error
    assert log[-1] == "end"
    assert "end" not in [value for value in log[:-1] if isinstance(value, str)]
    assert sum(value.numel() for value in log[1:-1]) == 3 * rows
    again = see(model, lambda _: {"input_ids": prompt(12), **OPTIONS})  # the model is usable
    assert again.error is None
    assert again.loops == 0


@pytest.mark.parametrize(
    "bad",
    [
        {"max_new_tokens": -1},
        {"temprature": 0.3},
        {"stop_strings": ["a"]},
        {"input_ids": torch.tensor([[5, 900]])},
        {"num_beams": 2},
        {"do_sample": True, "specee_seed": -1},
        {"specee_policy": "fast"},
        {"repetition_penalty": -1.0},
    ],
)
def test_a_bad_request_ends_the_streamer(model: Any, bad: dict[str, Any]) -> None:
    streamer = TextIteratorStreamer(tokenizer(), timeout=5)
    with pytest.raises(Exception, match=r".+"):
        model.generate(**{"input_ids": prompt(12), "streamer": streamer, **OPTIONS, **bad})
    assert list(streamer.text_queue.queue)[-1] is None


def test_a_streamer_that_fails_stops_the_text(model: Any) -> None:
    class Full(Written):
        def put(self, value: torch.Tensor) -> None:
            super().put(value)
            if len(self.log) == 4:
                raise BufferError("full")

    log: list[Any] = []
    with pytest.raises(BufferError, match="full"):
        model.generate(prompt(12), streamer=Full(log), **OPTIONS)
    assert log[-1] == "end"


def test_a_streamer_given_by_position(model: Any) -> None:
    log: list[Any] = []
    model.generate(prompt(12), None, None, None, None, None, None, Written(log), **OPTIONS)
    assert log[-1] == "end"
    log.clear()
    with pytest.raises(ValueError, match="max"):
        model.generate(prompt(12), None, None, None, None, None, None, Written(log), max_new_tokens=-1)
    assert log[-1] == "end"
