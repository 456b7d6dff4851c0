"""Arbitrary interleavings of the verbs over several sequences, against bookkeeping and the naive oracle.

The model of a sequence here is a path of tokens for each row and nothing else: no slots to reuse, no
frontier, no cache. Every cache slot not in use holds NaN, so reading one shows.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache as cache_calls

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specee.backends.protocol import Backend, SequenceState
from tests.engines import Engine, all_engines
from tests.oracle import Expected, expected
from tests.random_model import CONFIGS, RandomModel, random_model

CAPACITY = 14
FORMATS = [("llama", "fp32", "fp32"), ("mistral-window", "fp32", "fp32"), ("qwen2", "bf16", "fp16")]
FORMATS += [("aligned", "mixed", "fp16")]
STEP = st.tuples(
    st.sampled_from(["append", "branch", "advance", "advance", "advance", "prune", "commit", "rollback"]),
    st.integers(0, 2**32 - 1),
)


@dataclass(eq=False)
class Node:
    """A row as the test sees it: its tokens from the start, the layers done, its place, its parent."""

    path: tuple[int, ...]
    slot: int
    parent: Node | None
    done: int = 0

    def ancestors(self) -> list[Node]:
        """Itself and all above it."""
        return [self, *(self.parent.ancestors() if self.parent else [])]


class Shadow:
    """One sequence of a backend, and what it must look like."""

    def __init__(self, sequence: SequenceState, layers: int, vocab: int) -> None:
        self.sequence, self.layers, self.vocab = sequence, layers, vocab
        self.committed: list[Node] = []
        self.live: list[Node] = []
        self.named: list[Node] = []

    def room(self) -> int:
        return CAPACITY - len(self.committed) - len(self.live)

    def append(self, rng: np.random.Generator) -> None:
        if self.live or not self.room():
            return
        tokens = rng.integers(0, self.vocab, rng.integers(1, min(self.room(), 5) + 1)).tolist()
        for token, slot in zip(tokens, self.sequence.append(tokens), strict=True):
            above = self.committed[-1] if self.committed else None
            self.committed.append(Node((*(above.path if above else ()), token), slot, above))

    def branch(self, rng: np.random.Generator) -> None:
        if not self.committed or not self.room():
            return
        count = int(rng.integers(1, min(self.room(), 4) + 1))
        tokens = rng.integers(0, self.vocab, count).tolist()
        parents = [int(rng.integers(-1, i)) if i else -1 for i in range(count)]
        top = [self.committed[-1], *self.live][rng.integers(0, 1 + len(self.live))]
        root = None if top is self.committed[-1] and rng.random() < 0.5 else top.slot
        fresh: list[Node] = []
        for i, slot in enumerate(self.sequence.branch(tokens, parents, root)):
            above = fresh[parents[i]] if parents[i] >= 0 else top
            fresh.append(Node((*above.path, tokens[i]), slot, above))
        self.live += fresh

    def prune(self, rng: np.random.Generator) -> None:
        doomed = [node for node in self.live if rng.random() < 0.3]
        self.sequence.prune([node.slot for node in doomed])
        self.live = [node for node in self.live if not set(node.ancestors()) & set(doomed)]

    def commit(self, rng: np.random.Generator) -> None:
        chosen = [] if not self.live else self.live[rng.integers(0, len(self.live))].ancestors()
        path = [node for node in reversed(chosen) if node in self.live]
        path = path[: rng.integers(0, len(path) + 1)]
        self.sequence.commit([node.slot for node in path])
        for node in path:
            node.slot = len(self.committed)
            self.committed.append(node)
        self.live = []

    def rollback(self, rng: np.random.Generator) -> None:
        n = int(rng.integers(0, min(len(self.committed), 4) + 1))
        self.sequence.rollback(n)
        del self.committed[len(self.committed) - n :]
        self.live = []

    def choose(self, rng: np.random.Generator, to_layer: int) -> list[int]:
        """Slots for an advance, in any order; and what that will bring along."""
        nodes = self.committed[-6:] + self.live
        self.named = [nodes[i] for i in rng.permutation(len(nodes)) if rng.random() < 0.5]
        for node in {above for chosen in self.named for above in chosen.ancestors()}:
            node.done = max(node.done, to_layer)
        return [node.slot for node in self.named]


class Machine:
    """A backend under test with its shadows."""

    def __init__(self, backend: Backend, model: RandomModel, cache: str, sequences: int) -> None:
        self.backend, self.config = backend, model.config
        self.shadows = [
            Shadow(
                backend.sequence(CAPACITY, cache, poison=True), self.config.num_layers, self.config.vocab_size
            )
            for _ in range(sequences)
        ]

        @cache_calls
        def oracle(path: tuple[int, ...]) -> Expected:
            return expected(model, path, cache)

        self.oracle = oracle

    def step(self, verb: str, seed: int) -> None:
        rng = np.random.default_rng(seed)
        if verb == "advance":
            to_layer = int(rng.integers(1, self.config.num_layers + 1))
            chosen = [
                s for i in rng.permutation(len(self.shadows)) if rng.random() < 0.7 for s in [self.shadows[i]]
            ]
            self.backend.advance([(s.sequence, s.choose(rng, to_layer)) for s in chosen], to_layer)
        else:
            getattr(self.shadows[rng.integers(0, len(self.shadows))], verb)(rng)
        for shadow in self.shadows:
            self.check(shadow)

    def check(self, shadow: Shadow) -> None:
        sequence, layers = shadow.sequence, self.config.num_layers
        assert sequence.length == len(shadow.committed)
        assert sorted(sequence.speculative) == sorted(node.slot for node in shadow.live)
        wanted = tuple(sum(node.done > layer for node in shadow.committed) for layer in range(layers))
        assert sequence.frontier == wanted
        assert list(wanted) == sorted(wanted, reverse=True)
        for node in shadow.committed + shadow.live:
            row = sequence.row(node.slot)
            above = node.parent.slot if node.parent else -1
            found = (row.slot, row.token, row.parent, row.position, row.done)
            assert found == (node.slot, node.path[-1], above, len(node.path) - 1, node.done)

    def check_results(self) -> None:
        """Every key, value and readable hidden state, and its logits, against the oracle of its own path."""
        for shadow in self.shadows:
            for node in shadow.committed + shadow.live:
                oracle, position = self.oracle(node.path), len(node.path) - 1
                for layer in range(node.done):
                    keys, values = shadow.sequence.kv(layer, [node.slot])
                    oracle.check("keys", position, keys[0], layer)
                    oracle.check("values", position, values[0], layer)
                kept = node.done < self.config.num_layers or node in shadow.live
                if node.done and kept:
                    work = [(shadow.sequence, [node.slot])]
                    oracle.check("hidden", position, self.backend.hidden(work)[0], node.done - 1)
                    if node.done == self.config.num_layers:
                        oracle.check("logits", position, self.backend.logits(work)[0])

    def finish(self) -> None:
        """Bring everything to the end, so that what was left pending is checked too."""
        for shadow in self.shadows:
            slots = [node.slot for node in shadow.committed + shadow.live]
            self.backend.advance([(shadow.sequence, slots)], self.config.num_layers)
            for node in shadow.committed + shadow.live:
                node.done = self.config.num_layers
            self.check(shadow)
        self.check_results()


@pytest.mark.parametrize(("name", "weights", "cache"), FORMATS)
@pytest.mark.parametrize("engine", all_engines())
def test_any_interleaving(engine: Engine, name: str, weights: str, cache: str) -> None:
    model = random_model(CONFIGS[name], seed=7, kind=weights)
    backend = engine.load(model, weights)

    @settings(max_examples=30)
    @given(sequences=st.integers(1, 3), steps=st.lists(STEP, min_size=4, max_size=40))
    def interleave(sequences: int, steps: list[tuple[str, int]]) -> None:
        machine = Machine(backend, model, cache, sequences)
        for index, (verb, seed) in enumerate(steps):
            machine.step(verb, seed)
            if index % 8 == 7:
                machine.check_results()
        machine.finish()

    interleave()


class StaleRollback:
    """A sequence whose rollback forgets to give the rows up: what the fuzz must notice."""

    def __init__(self, sequence: SequenceState) -> None:
        self._sequence = sequence

    def __getattr__(self, name: str) -> object:
        return getattr(self._sequence, name)

    def rollback(self, n: int) -> None:
        self._sequence.rollback(max(0, n - 1))


def test_a_broken_rollback_is_noticed() -> None:
    model = random_model(CONFIGS["llama"], seed=7)
    machine = Machine(Engine("reference").load(model), model, "fp32", 1)
    machine.shadows[0].sequence = StaleRollback(machine.shadows[0].sequence)  # type: ignore[assignment]
    machine.step("append", 0)
    with pytest.raises(AssertionError):
        machine.step("rollback", 1)


def test_a_wrong_parent_is_noticed() -> None:
    """Attention that follows the chain instead of the tree changes results, and the oracle sees it."""
    model = random_model(CONFIGS["llama"], seed=7)
    machine = Machine(Engine("reference").load(model), model, "fp32", 1)
    shadow = machine.shadows[0]
    shadow.append(np.random.default_rng(0))
    slots = shadow.sequence.branch([10, 11, 12])
    top = shadow.committed[-1]
    shadow.live = [
        Node((*top.path, token), slot, top) for token, slot in zip([10, 11, 12], slots, strict=True)
    ]
    machine.backend.advance([(shadow.sequence, slots)], machine.config.num_layers)
    for node in shadow.committed + shadow.live:
        node.done = machine.config.num_layers
    with pytest.raises((AssertionError, IndexError)):
        machine.check_results()
