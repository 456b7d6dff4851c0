"""Chains of a drafter block on a model with rounds in one launch, and on the same model without."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from specee.backends.cuda import CudaBackend  # noqa: E402
from specee.backends.protocol import ChainCall, RoundCall, RoundTurn  # noqa: E402
from specee.models.drafter_parts import DrafterParts  # noqa: E402
from specee.types import Sampling  # noqa: E402
from tests.graph.place import Place  # noqa: E402
from tests.graph.round_pair import CAPACITY, GREEDY, Pair, contents  # noqa: E402
from tests.random_drafter import random_parts  # noqa: E402


@dataclass
class Blocks:
    """What drafts, on either backend of a pair; ``head`` are arguments of draft_head()."""

    pair: Pair
    parts: DrafterParts
    stored: Any = "Q8_0"
    head: tuple[Any, ...] | None = None
    samplings: Seq[Sampling] = (GREEDY, GREEDY)
    ends: Seq[int] = ()
    normed: bool = False
    uneven: bool = False  # lengths of caches and columns, and what is kept
    columns: list[Any] = field(default_factory=list)
    drafter: Any = None
    draft_head: Any = None

    def begin(self, backend: CudaBackend) -> list[Any]:
        """Sequences with all but their newest position computed, and columns of their own."""
        self.drafter = backend.drafter(self.parts, self.stored)
        self.draft_head = None
        if self.head is not None:
            self.draft_head = backend.draft_head(*self.head, normed=self.normed)
        sequences, self.columns = [], []
        for at, tokens in enumerate(self.pair.texts):
            more = at if self.uneven else 0
            sequence = backend.sequence(CAPACITY + more, poison=True)
            sequence.keep(self.layers() if not self.uneven or at % 2 else self.parts.layers, CAPACITY)
            self.columns.append(self.drafter.column(CAPACITY - more, "fp16", poison=True))
            slots = list(sequence.append(tokens))
            backend.advance([(sequence, slots[:-1])], self.pair.config.num_layers)
            sequences.append(sequence)
        return sequences

    def layers(self) -> tuple[int, ...]:
        return tuple(sorted({1, 2, *self.parts.layers}))

    def calls(self, sequences: list[Any], lengths: Seq[int], floor: float = 0.0) -> list[RoundCall]:
        return [
            RoundCall(
                *(sequence, sampling, self.ends, 99),
                ChainCall(sequence, column, length, floor, sampling) if length else None,
            )
            for sequence, sampling, column, length in zip(
                sequences, self.samplings, self.columns, lengths, strict=True
            )
        ]

    def round(self, backend: CudaBackend, calls: list[RoundCall]) -> RoundTurn:
        [turn] = backend.run_rounds(calls, self.drafter, self.draft_head)
        return turn

    def rounds(
        self,
        backend: CudaBackend,
        sequences: list[Any],
        turns: int,
        lengths: Seq[int] = (3, 3),
        floor: float = 0.0,
        remaining: int = 99,
    ) -> list[RoundTurn]:
        found: list[RoundTurn] = []
        left = [remaining] * len(sequences)
        for _ in range(turns):
            calls = [
                call._replace(remaining=more)
                for call, more in zip(self.calls(sequences, lengths, floor), left, strict=True)
            ]
            found.append(self.round(backend, calls))
            left = [more - len(text.tokens) for more, text in zip(left, found[-1].texts, strict=True)]
            if 0 in left or any(text.tokens[-1] in self.ends for text in found[-1].texts):
                break
        return found

    def both(self, rounds: Any) -> list[Any]:
        """What rounds say, which is the same of both, and leave rows, states and columns alike."""
        said = []
        for backend in (self.pair.whole, self.pair.steps):
            sequences = self.begin(backend)
            texts = [turn.texts for turn in rounds(backend, sequences)]
            said.append((texts, [self.left(*one) for one in zip(sequences, self.columns, strict=True)]))
        assert said[0] == said[1]
        return said[0][0]

    def left(self, sequence: Any, column: Any) -> tuple[Any, ...]:
        last = self.pair.config.num_layers
        begin = sequence.frontier[-1] - sequence.kept
        kept = [
            sequence.kept_state(slot, layer).cpu().numpy().tobytes()
            for slot in range(begin, sequence.frontier[-1])
            for layer in sequence.layers_kept
        ]
        stored = [
            part[: column.length].cpu().view(torch.int16).numpy().tobytes()
            for part in (column.cache.keys, column.cache.values)
        ]
        assert column.memory == list(range(column.length))
        return contents(sequence, last), kept, column.first, column.tokens, stored


def nearly_right(pair: Pair, rng: np.random.Generator, noise: float) -> DrafterParts:
    """Models say what follows from the newest token alone, and so does the block, but for some ``noise``."""
    for backend in (pair.whole, pair.steps):
        for layer in range(pair.config.num_layers):
            for role in ("o", "down"):
                backend._table.matrix(role, layer).zero_()
    parts = random_parts(pair.config, (1, pair.config.num_layers), rng)
    hidden = pair.config.hidden_size
    parts.fc[:] = np.hstack([np.eye(hidden), np.zeros((hidden, hidden))])
    parts.embed_norm[:] = 1
    for matrix in (parts.fc, parts.o, parts.down):
        scale = noise * float(rng.uniform(0.5, 1)) / np.sqrt(matrix.shape[1])
        matrix[:] = (matrix if matrix is parts.fc else 0) + scale * rng.standard_normal(matrix.shape)
    return parts


def right(place: Place, rng: np.random.Generator) -> tuple[Blocks, list[tuple[int, ...]]]:
    """Blocks whose first chains of three are right, and what they make of both texts in turn."""
    for _ in range(50):
        pair = Pair(place, rng, "tiles")
        blocks = Blocks(pair, nearly_right(pair, rng, 0.0))
        turns = blocks.rounds(pair.steps, blocks.begin(pair.steps), 5)
        said = [text.tokens for turn in turns for text in turn.texts]
        if {len(tokens) for tokens in said} == {4}:
            return blocks, said
    raise AssertionError("fifty blocks are wrong")
