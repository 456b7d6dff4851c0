"""Verbs above the layers that backends in torch share: from rows to states, logits, tokens and drafts.

What a backend has to know for them is how rows go through layers, and what the head makes of states.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from collections.abc import Sequence as Seq
from typing import ClassVar, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from specee.backends.protocol import DraftHead, Floats, Ints, Work
from specee.backends.reference_exits import checked_candidates
from specee.backends.reference_sequence import ReferenceSequence, Row
from specee.errors import ConfigurationError, RowError
from specee.sampling import penalised, sample
from specee.types import ModelConfig, Sampling

Named = list[tuple[ReferenceSequence, list[Row]]]


class KeptHead(Protocol):
    """What draft heads of these backends have: the model's shape, and kept tokens, None for all."""

    @property
    def config(self) -> ModelConfig:
        """Of the model that it was made for."""

    @property
    def ids(self) -> Tensor | None:
        """Kept tokens, ascending."""


H = TypeVar("H", bound=KeptHead)


def own_head(kind: type[H], head: object, config: ModelConfig) -> H | None:
    """``head``, if it is of that kind and for that very model. Raises ConfigurationError."""
    if head is None:
        return None
    if isinstance(head, kind) and head.config is config:
        return head
    raise foreign_head(head)


def foreign_head(head: object) -> ConfigurationError:
    """What to raise for a draft head that a backend did not make."""
    return ConfigurationError(
        f"a {type(head).__name__} of another backend or model: make draft heads with this backend's "
        "draft_head()"
    )


def kept_tokens(head: KeptHead | None, config: ModelConfig) -> int:
    """How many tokens a head has, the model's own for None."""
    return config.vocab_size if head is None or head.ids is None else len(head.ids)


class Draw(NamedTuple):
    """How to draw a token: at ``position``, after ``text``, which is asked for where a penalty wants it."""

    sampling: Sampling
    position: int
    text: Callable[[], Seq[int]]


class HeadVerbs(ABC):
    """See :class:`specee.backends.protocol.Backend`, which documents every verb."""

    name: ClassVar[str]
    config: ModelConfig

    @abstractmethod
    def advance(self, work: Work, to_layer: int) -> None:
        """Bring rows, and what they attend to, to ``to_layer`` layers done. Raises RowError."""

    @abstractmethod
    def _logits(self, states: Tensor, head: DraftHead | None) -> Floats:
        """Final norm and head of ``states`` (rows, hidden_size): (rows, vocab_size) fp32, on the host."""

    def _named(self, work: Work) -> Named:
        """The row objects of ``work``, after every check and before any change."""
        named: Named = []
        for sequence, slots in work:
            if not isinstance(sequence, ReferenceSequence) or sequence.owner is not self:
                raise RowError(f"{type(sequence).__name__} does not belong to this {self.name} backend")
            if any(sequence is other for other, _ in named):
                raise RowError("a sequence appears twice in one call: merge its slots into one entry")
            if len(set(slots)) != len(slots):
                raise RowError(f"slots {list(slots)} are not distinct: name each row once")
            named.append((sequence, [sequence.find(slot) for slot in slots]))
        return named

    def _states(self, work: Work) -> Tensor:
        """Hidden states: (rows, hidden_size) fp32 where the backend has them."""
        return self._stacked([s.hidden(row.slot) for s, rows in self._named(work) for row in rows])

    def _stacked(self, states: list[Tensor]) -> Tensor:
        return torch.stack(states) if states else torch.zeros(0, self.config.hidden_size)

    def hidden(self, work: Work) -> Floats:
        """Hidden states: (rows, hidden_size) fp32. Raises RowError."""
        return on_host(self._states(work))

    def logits(self, work: Work, head: DraftHead | None = None) -> Floats:
        """Final norm and head: (rows, vocab_size) fp32. Raises RowError, ConfigurationError."""
        return self._logits(self._states(work), head)

    def _choose(
        self, states: Tensor, draws: Seq[Draw] | None, head: DraftHead | None, *, shares: bool
    ) -> tuple[Ints, Floats]:
        """The token drawn after each state, the best one without ``draws``; and its share of the softmax.

        Shares are left out, (0,), where nobody asks for them.
        """
        logits = self._logits(states, head)
        if draws is None:
            tokens: Ints = np.argmax(logits, axis=1).astype(np.int64)
        else:
            tokens = np.array(list(map(drawn, logits, draws)), np.int64)
        return tokens, confidences(logits, tokens) if shares else np.zeros(0, np.float32)

    def _draws(self, work: Work, sampling: Seq[Sampling]) -> list[Draw]:
        named = [row for _, rows in self._named(work) for row in rows]
        if len(sampling) != len(named):
            raise RowError(f"{len(sampling)} samplings for {len(named)} rows: give one a row")
        return [Draw(s, row.position + 1, row.text) for s, row in zip(sampling, named, strict=True)]

    def argmax(self, work: Work) -> Ints:
        """Greedy tokens, lowest id among equals: (rows,)."""
        return self._choose(self._states(work), None, None, shares=False)[0]

    def topk(self, work: Work, k: int) -> tuple[Ints, Floats]:
        """Ids and logits of the k best, lower id first among equals: (rows, k) each."""
        if not 1 <= k <= self.config.vocab_size:
            raise RowError(f"k {k}: allowed are 1..{self.config.vocab_size}")
        logits = self.logits(work)
        ids = np.argsort(-logits, axis=1, kind="stable")[:, :k].astype(np.int64)
        return ids, np.take_along_axis(logits, ids, axis=1)

    def sample(self, work: Work, sampling: Seq[Sampling]) -> Ints:
        """The token after each row, with noise at its position + 1: (rows,)."""
        draws = self._draws(work, sampling)
        return self._choose(self._states(work), draws, None, shares=False)[0]

    def verify(self, work: Work, sampling: Seq[Sampling] | None) -> tuple[list[int], float, float]:
        """All layers, then the token after each row: (rows,), and the seconds of both."""
        begin = time.perf_counter()
        self.advance(work, self.config.num_layers)
        middle = time.perf_counter()
        chosen = self.argmax(work) if sampling is None else self.sample(work, sampling)
        return chosen.tolist(), middle - begin, time.perf_counter() - middle

    def draft(
        self, work: Work, sampling: Seq[Sampling], head: DraftHead | None = None
    ) -> tuple[Ints, Floats]:
        """The token drawn after each row, and its probability in the softmax: (rows,) each."""
        draws = self._draws(work, sampling)
        return self._choose(self._states(work), draws, head, shares=True)

    def shadow(self, work: Work, layers: Seq[int], head: DraftHead | None = None) -> tuple[Ints, Floats]:
        """The best token by each kept state, and its probability: (rows, layers). Raises RowError."""
        states = self._kept_states(work, layers)
        shape = (sum(len(slots) for _, slots in work), len(layers))
        tokens, shares = self._choose(states, None, head, shares=True)
        return tokens.reshape(shape), shares.reshape(shape)

    def _kept_states(self, work: Work, layers: Seq[int]) -> Tensor:
        named = self._named(work)
        states = [s.kept_state(row.slot, layer) for s, rows in named for row in rows for layer in layers]
        return self._stacked(states)

    def score(self, work: Work, layers: Seq[int], candidates: Ints) -> Floats:
        """Logits of a few candidates by each kept state: (rows, layers, k). Raises RowError."""
        rows = sum(len(own) for _, own in self._named(work))
        ids = checked_candidates(candidates, rows, self.config)
        states = self._kept_states(work, layers)
        wanted = np.repeat(ids, len(layers), axis=0)
        return self._scores(states, wanted).reshape(rows, len(layers), ids.shape[1])

    def candidate_logits(self, work: Work, candidates: Seq[Seq[int]]) -> Floats:
        """Logits of as many candidates of each row by its state: (rows, k), those of :meth:`logits`."""
        if not candidates:
            return np.zeros((0, 0), np.float32)
        return self._scores(self._states(work), np.asarray(candidates, np.int64))

    def _scores(self, states: Tensor, ids: Ints) -> Floats:
        """Logits of ``ids`` (rows, k) by ``states`` (rows, hidden_size): (rows, k)."""
        return np.take_along_axis(self._logits(states, None), ids, axis=1)


def on_host(tensor: Tensor) -> Floats:
    """A copy of fp32 numbers in numpy."""
    array: Floats = tensor.to(torch.float32).cpu().numpy().astype(np.float32, copy=True)
    return array


def confidences(logits: Floats, tokens: Ints) -> Floats:
    """Probability of each row's token in the softmax of its logits: (rows,)."""
    exact = logits.astype(np.float64)
    weights = np.exp(exact - exact.max(axis=1, keepdims=True, initial=-np.inf))
    probabilities = weights / weights.sum(axis=1, keepdims=True)
    chosen: Floats = probabilities[np.arange(len(tokens)), tokens].astype(np.float32)
    return chosen


def drawn(logits: Floats, draw: Draw) -> int:
    """The token that ``draw`` takes by ``logits`` (vocab_size,)."""
    penalty = draw.sampling.repetition_penalty
    if penalty != 1.0:
        logits = penalised(logits, draw.text(), penalty)
    return sample(logits, draw.sampling, draw.position)
