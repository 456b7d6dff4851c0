"""One sequence being generated: what was asked, its rows, and what came out so far."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass, field
from typing import Literal

from specee.backends.protocol import Backend, SequenceState
from specee.errors import CapacityError, ConfigurationError
from specee.policies import SequenceView
from specee.types import KVDtype, Sampling

FinishReason = Literal["eos", "length"]


@dataclass(frozen=True)
class Request:
    """A prompt and how to continue it. Raises ConfigurationError for an empty prompt or budget."""

    prompt: tuple[int, ...]
    max_new_tokens: int
    sampling: Sampling = field(default_factory=Sampling)
    eos: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        if not self.prompt:
            raise ConfigurationError("the prompt is empty: at least one token is needed to continue from")
        if self.max_new_tokens < 1:
            raise ConfigurationError(f"max_new_tokens={self.max_new_tokens}: allowed is 1 or more")

    @property
    def capacity(self) -> int:
        """Positions to reserve: the prompt and all that may follow."""
        return len(self.prompt) + self.max_new_tokens


@dataclass(eq=False)
class ActiveSequence:
    """A request in progress. The rows of ``state`` are the text: prompt, then ``generated``."""

    id: int
    request: Request
    state: SequenceState
    generated: list[int] = field(default_factory=list)
    finish_reason: FinishReason | None = None

    def view(self) -> SequenceView:
        """What a policy may know."""
        return SequenceView(self.id, self.state.length, self.state.frontier, self._remaining)

    @property
    def _remaining(self) -> int:
        return self.request.max_new_tokens - len(self.generated)

    def accept(self, tokens: Seq[int]) -> tuple[int, ...]:
        """Commit tokens up to the end of the text, and return those."""
        taken: list[int] = []
        for token in tokens:
            if self.finish_reason is not None:
                break
            self.state.append([token])
            self.generated.append(token)
            taken.append(token)
            if token in self.request.eos:
                self.finish_reason = "eos"
            elif self._remaining == 0:
                self.finish_reason = "length"
        return tuple(taken)


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
