"""Conversations that a model writes by itself, many at a time: the user's turn, then its own.

An instruct model, given its chat template up to the user's words, goes on with a question that somebody may
ask; so no data set is needed. (Xu et al., "Magpie: Alignment data synthesis from scratch by prompting aligned
LLMs with nothing", 2024)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from collections.abc import Sequence as Seq
from typing import NamedTuple

from specee.backends.protocol import Backend, SequenceState
from specee.engine import ActiveSequence, Generation, Request, continue_text
from specee.fitting.turns import Turns
from specee.models.tokenizer import Tokenizer
from specee.policies import Autoregressive
from specee.types import KVDtype, Sampling

_SPARE = 32  # positions: openings differ in length, and the next one may be longer


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


class _Turn(NamedTuple):
    """Of the user or the model, as it is written. ``question``: where the user's own words begin."""

    wish: Wish
    question: int
    sequence: ActiveSequence


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
        for index, conversation in self.stream(wishes):
            found[index] = conversation
        return found

    def stream(self, wishes: Iterable[Wish]) -> Iterator[tuple[int, Conversation | None]]:
        """The same as they end, each with the place of its wish.

        A wish is taken when there is room for it: as long as there are any, ``width`` texts are under way.
        """
        waiting = enumerate(wishes)
        running: dict[int, _Turn] = {}
        idle: list[SequenceState] = []
        while True:
            while len(running) < self._width and (wished := next(waiting, None)) is not None:
                index, wish = wished
                question = self._question(wish)
                state = self._room(idle, len(question.prompt))
                running[index] = _Turn(wish, len(question.prompt), self._begun(index, question, state))
            if not running:
                return
            for one in self._until_some_end([turn.sequence for turn in running.values()]):
                turn = running.pop(one.id)
                if self._is_question(turn) and not _is_empty(one):
                    answer = self._answer(one, turn.wish.answer)
                    running[one.id] = turn._replace(sequence=self._begun(one.id, answer, one.state))
                    continue
                idle.append(one.state)
                yield one.id, None if self._is_question(turn) else self._conversation(turn)

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

    def _is_question(self, turn: _Turn) -> bool:
        return self._chats and len(turn.sequence.request.prompt) == turn.question

    def _conversation(self, turn: _Turn) -> Conversation:
        return Conversation(tuple(turn.sequence.text), turn.question, len(turn.sequence.request.prompt))

    def _room(self, idle: list[SequenceState], prompt: int) -> SequenceState:
        """For a whole conversation. One that is over leaves its room, and the beginning of the template."""
        asked = self._question_tokens + len(self._between) if self._chats else 0
        needed = prompt + asked + self._answer_tokens
        while idle:
            state = idle.pop()
            if state.capacity >= needed:
                return state
        able = min(needed + _SPARE, self._backend.config.max_position)
        return self._backend.sequence(max(needed, able), self._kv_dtype)

    @staticmethod
    def _begun(index: int, request: Request, state: SequenceState) -> ActiveSequence:
        continue_text(state, request.prompt)
        return ActiveSequence(index, request, state)

    def _until_some_end(self, running: Seq[ActiveSequence]) -> list[ActiveSequence]:
        """Go on until there is room for another one; those that are over."""
        for _ in Generation(self._backend, running, Autoregressive()):
            if any(one.finish_reason is not None for one in running):
                break
        return [one for one in running if one.finish_reason is not None]


def _is_empty(asked: ActiveSequence) -> bool:
    """Whether the user has said nothing at all."""
    return asked.finish_reason == "eos" and len(asked.generated) == 1
