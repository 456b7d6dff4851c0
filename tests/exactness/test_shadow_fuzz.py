"""Kept states and shadow tokens under any interleaving of the verbs."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass, replace

import numpy as np
import pytest

from specee.backends.protocol import Backend, SequenceState
from specee.errors import RowError
from tests.engines import Engine, all_engines
from tests.exactness.kept import LAYERS, Fresh
from tests.random_model import BASE, random_model


@dataclass(eq=False)
class Node:
    """A row as the fuzz sees it; ``kept``: the keep() it began under, None if nothing is kept of it."""

    parent: Node | None
    done: int = 0
    kept: int | None = None

    def path(self) -> list[Node]:
        return [*(self.parent.path() if self.parent else []), self]


class Fuzz:
    """Arbitrary interleavings of the verbs, and of which rows something must be kept."""

    def __init__(self, backend: Backend, fresh: Fresh, seed: int) -> None:
        self.backend, self.fresh, self.rng = backend, fresh, np.random.default_rng(seed)
        self.layers, self.vocab = backend.config.num_layers, backend.config.vocab_size
        self.sequence = backend.sequence(24, poison=True)
        self.committed: list[Node] = []
        self.live: dict[int, Node] = {}
        self.kept_layers: list[int] = []
        self.positions, self.keeps, self.compared = 0, 0, 0

    def rows(self) -> dict[int, Node]:
        return dict(enumerate(self.committed)) | self.live

    def some(self, slots: Seq[int]) -> list[int]:
        return [int(slot) for slot in self.rng.permutation(slots) if self.rng.random() < 0.4]

    def tokens(self) -> list[int]:
        room = 24 - len(self.committed) - len(self.live)
        return self.rng.integers(0, self.vocab, self.rng.integers(0, min(room, 5) + 1)).tolist()

    def keep(self) -> None:
        every = range(1, self.layers + 1)
        self.kept_layers = [layer for layer in every if self.rng.random() < 0.6]
        self.positions = int(self.rng.integers(0, 7))
        self.sequence.keep(self.kept_layers, self.positions)
        self.keeps += 1

    def append(self) -> None:
        if not self.live:
            for _ in self.sequence.append(self.tokens()):
                self.committed.append(Node(self.committed[-1] if self.committed else None))

    def branch(self) -> None:
        if not self.committed:
            return
        tokens = self.tokens()
        parents = [int(self.rng.integers(-1, i)) if i else -1 for i in range(len(tokens))]
        slots = self.sequence.branch(tokens, parents)
        for slot, above in zip(slots, parents, strict=True):
            self.live[slot] = Node(self.committed[-1] if above < 0 else self.live[slots[above]])

    def advance(self) -> None:
        to_layer = int(self.rng.integers(1, self.layers + 1))
        named = self.some(list(self.rows()))
        self.backend.advance([(self.sequence, named)], to_layer)
        rows = self.rows()
        for node in {node for slot in named for node in rows[slot].path() if node.done < to_layer}:
            if node.done == 0 and self.kept_layers:
                node.kept = self.keeps
            node.done = to_layer

    def prune(self) -> None:
        doomed = self.some(list(self.live))
        self.sequence.prune(doomed)
        gone = {self.live[slot] for slot in doomed}
        self.live = {slot: node for slot, node in self.live.items() if not gone & set(node.path())}

    def commit(self) -> None:
        path: list[Node] = []
        if self.live:
            chosen = self.live[int(self.rng.choice(list(self.live)))].path()
            path = [node for node in chosen if node in self.live.values()]
        slots = {node: slot for slot, node in self.live.items()}
        self.sequence.commit([slots[node] for node in path])
        self.committed += path
        self.live = {}

    def rollback(self) -> None:
        n = int(self.rng.integers(0, min(len(self.committed), 3) + 1))
        self.sequence.rollback(n)
        del self.committed[len(self.committed) - n :]
        self.live = {}

    def step(self) -> None:
        verbs = ["append", "branch", "advance", "advance", "advance", "commit", "prune", "rollback"]
        getattr(self, "keep" if self.rng.random() < 0.05 else self.rng.choice(verbs))()
        complete = sum(node.done == self.layers for node in self.committed)
        for node in self.committed[: max(0, complete - self.positions)]:
            node.kept = None
        self.check(complete)

    def check(self, complete: int) -> None:
        kept = [node.kept is not None and node.kept == self.keeps for node in self.committed[:complete]]
        assert self.sequence.kept == next((i for i, yes in enumerate(kept[::-1]) if not yes), len(kept))
        for slot, node in self.rows().items():
            readable = node.kept is not None and node.kept == self.keeps
            done = [layer for layer in self.kept_layers if layer <= node.done]
            if readable and done:
                assert self.fresh.agrees(self.sequence, [slot], done)
                self.compared += len(done)
            for layer in range(1, self.layers + 1):
                if not readable or layer not in done:
                    with pytest.raises(RowError):
                        self.backend.shadow([(self.sequence, [slot])], [layer])


@pytest.mark.parametrize("engine", all_engines())
def test_any_interleaving(engine: Engine) -> None:
    backend = engine.load(random_model(replace(BASE, vocab_size=40), seed=3), threads=2)
    fresh, compared = Fresh(backend), 0
    for seed in range(6):
        print("seed", seed)
        fuzz = Fuzz(backend, fresh, seed)
        fuzz.keep()
        for _ in range(50):
            fuzz.step()
        compared += fuzz.compared
    assert compared > 200, "too little was compared"


class NarrowWindow:
    """A sequence that lets go of kept states one position too early: what the fuzz must notice."""

    def __init__(self, sequence: SequenceState) -> None:
        self._sequence = sequence

    def __getattr__(self, name: str) -> object:
        return getattr(self._sequence, name)

    def keep(self, layers: Seq[int], positions: int) -> None:
        self._sequence.keep(layers, max(0, positions - 1))


def test_a_wrong_window_is_noticed() -> None:
    backend = Engine("reference").load(random_model(BASE, seed=3))
    fuzz = Fuzz(backend, Fresh(backend), seed=0)
    fuzz.kept_layers = [1, 3]
    fuzz.committed = [Node(None, LAYERS, None if i < 2 else fuzz.keeps) for i in range(4)]
    for sequence in (NarrowWindow(fuzz.sequence), fuzz.sequence):
        fuzz.sequence.rollback(fuzz.sequence.length)
        sequence.keep([1, 3], 2)
        backend.advance([(fuzz.sequence, fuzz.sequence.append([1, 2, 3, 4])[-1:])], LAYERS)
        if sequence is not fuzz.sequence:
            with pytest.raises(AssertionError):
                fuzz.check(4)
    fuzz.check(4)
