"""One sequence being generated: what was asked, its rows, and what came out so far."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Seq
from dataclasses import dataclass, field
from typing import TypeAlias

from specee.acceptance import Acceptance
from specee.backends.protocol import Backend, Floats, Ints, SequenceState
from specee.errors import CapacityError, ConfigurationError
from specee.policies import SequenceView
from specee.types import FinishReason, KVDtype, Sampling

Processor: TypeAlias = Callable[[Ints, Floats], Floats]
"""Changes the scores of the next token: (text so far (tokens,), scores (vocab_size,) fp32) -> scores."""
Stop: TypeAlias = Callable[[Seq[int]], bool]
"""Whether the text is over, given the new tokens so far."""


@dataclass(frozen=True)
class Request:
    """A prompt and how to continue it.

    ``processors`` run once for each token that is emitted, in order, with the text before it, after the
    repetition penalty and before temperature and what follows. ``stops`` are asked after each emitted token
    that is no end-of-text token. ``acceptance`` is the rule of :mod:`specee.acceptance`. Raises
    ConfigurationError for an empty prompt or budget.
    """

    prompt: tuple[int, ...]
    max_new_tokens: int
    sampling: Sampling = field(default_factory=Sampling)
    eos: frozenset[int] = frozenset()
    processors: tuple[Processor, ...] = ()
    stops: tuple[Stop, ...] = ()
    acceptance: Acceptance = "coupled"

    def __post_init__(self) -> None:
        if not self.prompt:
            raise ConfigurationError("the prompt is empty: at least one token is needed to continue from")
        if self.max_new_tokens < 1:
            raise ConfigurationError(f"max_new_tokens={self.max_new_tokens}: allowed is 1 or more")

    @property
    def capacity(self) -> int:
        """Positions to reserve: the prompt and all that may follow."""
        return len(self.prompt) + self.max_new_tokens


class ActiveSequence:
    """A request in progress. The rows of ``state`` are ``text``: prompt, then ``generated``."""

    def __init__(self, index: int, request: Request, state: SequenceState) -> None:
        self.id = index
        self.request = request
        self.state = state
        self.text = list(request.prompt)
        self._capacity = request.capacity
        sampling = request.sampling
        self.rejection = request.acceptance == "rejection" and sampling.temperature > 0
        """Whether drafts are judged by classical rejection sampling."""
        self.judged = self.rejection or bool(request.processors)
        """Whether scores have to come to Python."""
        self.watched = self.judged or bool(request.stops)
        """Whether Python has a say in which drafts stay."""
        # How much of the text counts, and why it is over: replaced in one assignment, which a signal cannot
        # split.
        self._committed: tuple[int, FinishReason | None] = (len(self.text), None)

    @property
    def generated(self) -> list[int]:
        """The new tokens so far."""
        return self.text[len(self.request.prompt) : self._committed[0]]

    @property
    def finish_reason(self) -> FinishReason | None:
        """Why the text is over, None while it goes on."""
        return self._committed[1]

    @property
    def remaining(self) -> int:
        """Tokens it may still be given."""
        return self._capacity - self._committed[0]

    def view(self) -> SequenceView:
        """What a policy may know."""
        return SequenceView(self.id, len(self.text), self.state.frontier, self.remaining)

    def end_after(self, tokens: Seq[int]) -> FinishReason | None:
        """Why the text would be over after ``tokens``, judging the last one; None if it goes on."""
        if tokens[-1] in self.request.eos:
            return "eos"
        stops = self.request.stops
        if stops:
            generated = [*self.generated, *tokens]
            if any(stop(generated) for stop in stops):
                return "stop"
        return "length" if len(tokens) >= self.remaining else None

    def commit(
        self, tokens: Seq[int], accepted: Seq[int], end: FinishReason | None, *, drafted: bool
    ) -> None:
        """Make ``tokens`` text: the first ones have rows, in the slots ``accepted``; all other drafts go.

        ``drafted``: whether there are any speculative rows.
        """
        if drafted:
            self.state.commit(accepted)
        drawn = tokens[len(accepted) :]
        if drawn:
            self.state.append(drawn)
        self.extend(tokens, end)

    def extend(self, tokens: Seq[int], end: FinishReason | None) -> None:
        """The same where the rows are the text already."""
        self.text += tokens
        self._committed = (len(self.text), end)

    def restore(self) -> None:
        """Undo what a step that failed has left undone, wherever it was interrupted.

        No speculative row is left, and the newest token waits to be computed from the first layer on: a step
        reads its hidden state, which the backend may let go once the row is complete.
        """
        length, _ = self._committed
        del self.text[length:]
        self.state.commit([])
        self.state.rollback(self.state.length - length)
        newest = self.state.row(length - 1)
        if newest.done:
            self.state.rollback(1)
            self.state.append([newest.token])


def continue_text(state: SequenceState, prompt: Seq[int]) -> int:
    """Make the rows of ``state`` those of ``prompt``; return how many leading ones could stay.

    The last token always runs again: its logits are where the answer begins.
    """
    same, most = 0, min(state.length, len(prompt) - 1)
    while same < most and state.row(same).token == prompt[same]:
        same += 1
    state.rollback(state.length - same)
    state.append(prompt[same:])
    return same


def reserve(
    backend: Backend, requests: Seq[Request], kv_dtype: KVDtype | None = None
) -> list[ActiveSequence]:
    """Room for every request, and its prompt in it; nothing runs before all have theirs.

    Raises CapacityError for a request that does not fit the context, OutOfMemoryError.
    """
    context = backend.config.max_position
    for request in requests:
        if request.capacity > context:
            raise CapacityError(
                f"a prompt of {len(request.prompt)} tokens and max_new_tokens={request.max_new_tokens} need "
                f"{request.capacity} positions, and the context holds {context}: shorten one of them"
            )
    states = [backend.sequence(request.capacity, kv_dtype) for request in requests]
    for request, state in zip(requests, states, strict=True):
        state.append(request.prompt)
    pairs = enumerate(zip(requests, states, strict=True))
    return [ActiveSequence(index, request, state) for index, (request, state) in pairs]
