"""A conversation that keeps its cache."""

from __future__ import annotations

import pytest

from specee.backends.protocol import Backend
from specee.chat import Chat
from specee.errors import CapacityError
from specee.options import NAMES, Options, resolve
from specee.types import Sampling
from tests.unit.runs import Interrupted, by_hand


def options(count: int) -> Options:
    said = dict.fromkeys(NAMES) | {"max_new_tokens": count, "eos_token_id": []}
    return resolve(said, {}, (), 1, 1)


def test_chat_keeps_what_stays_the_same(backend: Backend) -> None:
    chat = Chat(backend)
    first = chat.answer([1, 2, 3], options(4))
    list(first)
    text = [1, 2, 3, *first.sequences[0].generated]
    for prompt, reused in [([*text, 50, 51], 7), ([*text, 60], 7), ([1, 2, 9], 2), ([1, 2, 9], 2), ([8], 0)]:
        answer = chat.answer(prompt, options(3), "layerskip:exit_layer=1")
        list(answer)
        assert chat.reused == reused
        assert answer.sequences[0].generated == by_hand(backend, tuple(prompt), 3, Sampling())


def test_chat_goes_on_after_an_interrupt(backend: Backend) -> None:
    chat = Chat(Interrupted(backend, 3, after=True))  # type: ignore[arg-type]
    answer = chat.answer([1, 2, 3], options(9))
    with pytest.raises(KeyboardInterrupt):
        list(answer)
    prompt = [1, 2, 3, *answer.sequences[0].generated, 70]
    again = chat.answer(prompt, options(2))
    list(again)
    assert chat.reused == 3 + len(answer.sequences[0].generated) > 3
    assert again.sequences[0].generated == by_hand(backend, tuple(prompt), 2, Sampling())


def test_chat_grows_and_resets(backend: Backend) -> None:
    chat = Chat(backend)
    list(chat.answer([1, 2], options(2)))
    with pytest.raises(CapacityError, match="256"):
        chat.answer([1] * 250, options(7))
    chat.reset()
    list(chat.answer([1, 2, 3], options(1)))
    assert chat.reused == 0
