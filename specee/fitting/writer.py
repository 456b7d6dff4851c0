"""Conversations that a model writes by itself, many at a time: the user's turn, then its own.

An instruct model, given its chat template up to the user's words, goes on with a question that somebody may
ask; so no data set is needed. (Xu et al., "Magpie: Alignment data synthesis from scratch by prompting aligned
LLMs with nothing", 2024)
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence as Seq
from typing import NamedTuple

from specee.backends.protocol import Backend
from specee.engine import ActiveSequence, Generation, Request
from specee.fitting.turns import Turns
from specee.models.tokenizer import Tokenizer
from specee.policies import Autoregressive
from specee.types import KVDtype, Sampling


class Wish(NamedTuple):
    """A conversation to be written.

    ``opening``: how the user begins. ``question`` and ``answer``: how tokens of either are drawn.
    """

    opening: str
    question: Sampling
    answer: Sampling


class Conversation(NamedTuple):
    """``tokens`` of the whole text; the model wrote those from ``question`` on, and from ``answer`` on."""

    tokens: tuple[int, ...]
    question: int
    answer: int


class Writer:
    """Writes conversations with one model, up to ``width`` of them side by side."""

    def __init__(
        self,
        backend: Backend,
        tokenizer: Tokenizer,
        turns: Turns,
        ends: frozenset[int],
        *,
        width: int = 32,
        question_tokens: int = 128,
        answer_tokens: int = 256,
        kv_dtype: KVDtype | None = None,
    ) -> None:
        self._backend, self._tokenizer, self._turns = backend, tokenizer, turns
        self._ends = ends
        self._width = width
        self._question_tokens, self._answer_tokens = question_tokens, answer_tokens
        self._kv_dtype = kv_dtype
        self._between = tuple(tokenizer.encode(turns.between, add_special_tokens=False))
        self._chats = bool(turns.between)  # else the opening is gone on with, and that is all

    def write(self, wishes: Seq[Wish]) -> list[Conversation | None]:
        """One for each wish, whatever is written beside it; None where the user says nothing."""
        found: list[Conversation | None] = [None] * len(wishes)
        questions = {index: self._question(wish) for index, wish in enumerate(wishes)}
        waiting = deque(questions.items())
        running: list[ActiveSequence] = []
        while waiting or running:
            while waiting and len(running) < self._width:
                running.append(self._begin(*waiting.popleft()))
            for one in self._until_some_end(running, refill=bool(waiting)):
                running.remove(one)
                begin = len(questions[one.id].prompt)
                if not self._chats or len(one.request.prompt) > begin:
                    found[one.id] = Conversation(tuple(one.text), begin, len(one.request.prompt))
                elif one.finish_reason == "length" or len(one.generated) > 1:
                    waiting.appendleft((one.id, self._answer(one, wishes[one.id].answer)))
        return found

    def _question(self, wish: Wish) -> Request:
        if self._chats:
            prompt = self._tokenizer.encode(self._turns.before + wish.opening, add_special_tokens=False)
            return Request(tuple(prompt), self._question_tokens, wish.question, self._ends)
        prompt = self._tokenizer.encode(wish.opening)
        return Request(tuple(prompt) or (self._first(),), self._answer_tokens, wish.answer, self._ends)

    def _first(self) -> int:
        """What a text begins with that has no words yet."""
        ids = self._tokenizer.bos_token_id, self._tokenizer.eos_token_id, 0
        return next(index for index in ids if index is not None)

    def _answer(self, asked: ActiveSequence, sampling: Sampling) -> Request:
        """The end of the user's turn belongs to the template; a turn that came to none ends where it is."""
        words = asked.text[:-1] if asked.finish_reason == "eos" else asked.text
        return Request((*words, *self._between), self._answer_tokens, sampling, self._ends)

    def _begin(self, index: int, request: Request) -> ActiveSequence:
        state = self._backend.sequence(request.capacity, self._kv_dtype)
        state.append(request.prompt)
        return ActiveSequence(index, request, state)

    def _until_some_end(self, running: Seq[ActiveSequence], *, refill: bool) -> list[ActiveSequence]:
        """Go on until there is room for another one, or all are over."""
        for _ in Generation(self._backend, running, Autoregressive()):
            if refill and any(one.finish_reason is not None for one in running):
                break
        return [one for one in running if one.finish_reason is not None]
