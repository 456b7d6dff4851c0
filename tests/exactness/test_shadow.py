"""Kept states and shadow tokens: what a layer would draft, as a fresh sequence at that layer drafts it."""

from __future__ import annotations

import threading
from collections.abc import Sequence as Seq
from dataclasses import dataclass, replace
from functools import cache as cache_calls

import numpy as np
import pytest

from specee.backends.protocol import Backend, DraftHead, SequenceState
from specee.errors import ConfigurationError, NumericalError, RowError
from specee.types import Sampling
from tests.engines import Engine, all_engines, native_engines
from tests.exactness.draws import CONFIDENCE, confidence, text_of
from tests.exactness.test_draft_heads import Stranger, random_adapter, same_bits, vocabulary
from tests.random_model import BASE, SHAPES, random_model

LAYERS = BASE.num_layers
ALL = range(1, LAYERS + 1)
FORMATS = [("llama", "fp32"), ("llama-tied", "bf16"), ("mistral-window", "int8"), ("aligned", "mixed")]


def tokens_of(backend: Backend, count: int, seed: int = 0) -> list[int]:
    return np.random.default_rng(seed).integers(0, backend.config.vocab_size, count).tolist()


class Fresh:
    """What each layer drafts after a text, by a sequence of that text's own that keeps nothing."""

    def __init__(self, backend: Backend, head: DraftHead | None = None) -> None:
        self.backend, self.head = backend, head

        @cache_calls
        def drafts(text: tuple[int, ...]) -> list[tuple[int, float]]:
            sequence = backend.sequence(len(text))
            work = [(sequence, sequence.append(text)[-1:])]
            found = []
            for layer in range(1, backend.config.num_layers + 1):
                backend.advance(work, layer)
                logits = backend.logits(work, head)[0]
                ((token,), (share,)) = backend.draft(work, [Sampling()], head)
                assert token == logits.argmax()
                np.testing.assert_allclose(share, confidence(logits, token), rtol=CONFIDENCE)
                found.append((int(token), float(share)))
            return found

        self.drafts = drafts

    def agrees(self, sequence: SequenceState, slots: Seq[int], layers: Seq[int]) -> bool:
        """Whether the shadows of some rows are those drafts, to the bit."""
        tokens, shares = self.backend.shadow([(sequence, slots)], layers, self.head)
        assert (tokens.dtype, shares.dtype) == (np.int64, np.float32)
        assert tokens.shape == shares.shape == (len(slots), len(layers))
        wanted = [[self.drafts(tuple(text_of(sequence, slot)))[at - 1] for at in layers] for slot in slots]
        got = np.stack([tokens, shares], axis=-1).tolist()
        return got == [[list(pair) for pair in row] for row in wanted]


def is_kept(backend: Backend, sequence: SequenceState, slot: int, layer: int) -> bool:
    try:
        backend.shadow([(sequence, [slot])], [layer])
    except RowError as error:
        if "not kept" not in str(error):
            raise
        return False
    return True


@pytest.mark.parametrize(("name", "weights"), FORMATS)
@pytest.mark.parametrize("engine", all_engines())
def test_a_prompt_in_chunks(engine: Engine, name: str, weights: str) -> None:
    """Chunks of all sizes, taken to the end at once or layer by layer."""
    backend = engine.load(random_model(SHAPES[name], seed=3, kind=weights), weights, threads=2)
    layers = backend.config.num_layers
    fresh = Fresh(backend)
    for seed, cuts in enumerate(([20], [1, 7, 12], [4, 16])):
        sequence = backend.sequence(20, poison=True)
        sequence.keep(range(1, layers + 1), 6)
        tokens = tokens_of(backend, 20, seed)
        for size in cuts:
            begin = sequence.length
            work = [(sequence, sequence.append(tokens[begin : begin + size])[-1:])]
            for layer in range(1, layers + 1) if seed else [layers]:
                backend.advance(work, layer)
                assert fresh.agrees(sequence, range(begin, begin + size)[-6:], range(1, layer + 1))
        assert sequence.kept == 6
        assert fresh.agrees(sequence, [17, 14, 19], [layers, 1])
        assert not is_kept(backend, sequence, 13, 1)


@pytest.mark.parametrize("engine", all_engines())
def test_a_prompt_over_several_passes(engine: Engine) -> None:
    """Native passes have 64 rows; the window lies across two of them, ends with one, or is none at all."""
    backend = engine.load(random_model(BASE, seed=3), threads=2)
    for length, positions in ((130, 5), (128, 3), (70, 66), (65, 0), (70, 1000)):
        sequence = backend.sequence(length, poison=True)
        sequence.keep([1, LAYERS], positions)
        slots = sequence.append(tokens_of(backend, length))
        backend.advance([(sequence, slots[-1:])], LAYERS)
        assert sequence.kept == min(length, positions)
        first = length - sequence.kept
        assert [is_kept(backend, sequence, slot, 1) for slot in slots] == [slot >= first for slot in slots]
        assert Fresh(backend).agrees(sequence, slots[first:][-4:], [1, LAYERS])


@pytest.mark.parametrize("engine", all_engines())
def test_drafts_committed_beside_rejected_branches(engine: Engine) -> None:
    backend = engine.load(random_model(BASE, seed=3), threads=2)
    fresh = Fresh(backend)
    sequence = backend.sequence(16, poison=True)
    sequence.keep(ALL, 4)
    backend.advance([(sequence, sequence.append([1, 2, 3])[-1:])], LAYERS)
    for token in (10, 20):
        # Another branch stands first, so that what is committed moves; rows wait at layer 1, then go on.
        slots = sequence.branch([token, token + 1, token + 2, token + 3, token + 4], [-1, 0, -1, 2, 3])
        backend.advance([(sequence, [slots[1], slots[4]])], 1)
        assert fresh.agrees(sequence, slots, [1])
        with pytest.raises(RowError, match="advance"):
            backend.shadow([(sequence, [slots[4]])], [2])
        backend.advance([(sequence, slots[:4])], LAYERS)
        assert fresh.agrees(sequence, slots[:4], ALL)
        sequence.commit(slots[2:])
        length = sequence.length
        assert (sequence.kept, sequence.frontier[-1]) == (4, length - 1)
        assert fresh.agrees(sequence, range(length - 5, length - 1), ALL)
        assert fresh.agrees(sequence, [length - 1], [1]), "the newest row waits at layer 1"
        assert not is_kept(backend, sequence, length - 6, 1)
        backend.advance([(sequence, [length - 1])], LAYERS)
        assert not is_kept(backend, sequence, length - 5, 1)
        assert fresh.agrees(sequence, range(length - 4, length), ALL)


@pytest.mark.parametrize("engine", all_engines())
def test_a_rollback_brings_nothing_back(engine: Engine) -> None:
    backend = engine.load(random_model(BASE, seed=3))
    fresh = Fresh(backend)
    sequence = backend.sequence(16, poison=True)
    sequence.keep([2, 3], 4)
    backend.advance([(sequence, sequence.append(range(1, 9))[-1:])], LAYERS)
    sequence.rollback(2)
    assert (sequence.kept, is_kept(backend, sequence, 3, 2)) == (2, False)
    assert fresh.agrees(sequence, [4, 5], [2, 3])
    backend.advance([(sequence, sequence.append([30])[-1:])], LAYERS)
    assert sequence.kept == 3
    assert fresh.agrees(sequence, [4, 5, 6], [2, 3])
    sequence.rollback(7)
    assert (sequence.length, sequence.kept) == (0, 0)
    backend.advance([(sequence, sequence.append([5, 6])[-1:])], LAYERS)
    assert sequence.kept == 2
    assert fresh.agrees(sequence, [0, 1], [2, 3])
    for token in range(10, 17):  # rows that come again leave the window as they did the first time
        backend.advance([(sequence, sequence.append([token])[-1:])], LAYERS)
        first = max(0, sequence.length - 4)
        kept = [is_kept(backend, sequence, slot, 2) for slot in range(sequence.length)]
        assert kept == [slot >= first for slot in range(sequence.length)]


@pytest.mark.parametrize("engine", all_engines())
def test_keep_forgets_and_takes_rows_that_begin_later(engine: Engine) -> None:
    backend = engine.load(random_model(BASE, seed=3))
    fresh = Fresh(backend)
    sequence = backend.sequence(16, poison=True)
    assert sequence.kept == 0
    backend.advance([(sequence, sequence.append([1, 2])[-1:])], LAYERS)
    backend.advance([(sequence, sequence.append([3])[-1:])], 1)
    sequence.append([4])
    sequence.keep([1, 3], 8)
    backend.advance([(sequence, [3])], LAYERS)
    assert sequence.kept == 1
    assert not is_kept(backend, sequence, 2, 3), "slot 2 had begun"
    assert fresh.agrees(sequence, [3], [1, 3])
    sequence.keep([1, 2], 8)
    assert sequence.kept == 0
    assert not is_kept(backend, sequence, 3, 1)
    for layers, positions in (([1, 2], 1), ([3], 8)):
        sequence.keep(layers, positions)
        backend.advance([(sequence, sequence.append([6, 7])[-1:])], LAYERS)
        assert sequence.kept == min(2, positions)
        assert fresh.agrees(sequence, [sequence.length - 1], layers)
        assert not is_kept(backend, sequence, sequence.length - 1, 4 - layers[0])
    sequence.keep([], 8)
    backend.advance([(sequence, sequence.append([8])[-1:])], LAYERS)
    assert sequence.kept == 0
    assert not is_kept(backend, sequence, sequence.length - 1, 3)


@pytest.mark.parametrize("engine", all_engines())
def test_several_sequences_in_one_call(engine: Engine) -> None:
    """Each keeps layers of its own; passes mix them with one that keeps none."""
    backend = engine.load(random_model(BASE, seed=3), threads=3)
    fresh = Fresh(backend)
    sequences = [backend.sequence(12, poison=True) for _ in range(3)]
    for sequence, layers in zip(sequences, ([1, 2], [2, 3], []), strict=True):
        sequence.keep(layers, 3)
    work = [
        (sequence, list(sequence.append(tokens_of(backend, 4 + i, i)))[-2:])
        for i, sequence in enumerate(sequences)
    ]
    backend.advance(work, LAYERS)
    assert [sequence.kept for sequence in sequences] == [3, 3, 0]
    tokens, shares = backend.shadow([(sequences[1], [4, 2]), (sequences[0], [3])], [2])
    for at, (sequence, slot) in enumerate(((sequences[1], 4), (sequences[1], 2), (sequences[0], 3))):
        wanted = fresh.drafts(tuple(text_of(sequence, slot)))[1]
        assert (tokens[at, 0], shares[at, 0]) == wanted
    for layer in (1, 3):
        with pytest.raises(RowError, match=f"layer {layer}"):
            backend.shadow([(sequences[1], [4]), (sequences[0], [3])], [layer])
    empty = backend.shadow([], [2])
    assert [part.shape for part in empty] == [(0, 1), (0, 1)]
    nothing = backend.shadow([(sequences[0], [3])], [])
    assert [part.shape for part in nothing] == [(1, 0), (1, 0)]


@pytest.mark.parametrize("weights", ["fp32", "bf16", "int8"])
@pytest.mark.parametrize("engine", all_engines())
def test_with_an_adapter_and_fewer_tokens(engine: Engine, weights: str) -> None:
    backend = engine.load(random_model(BASE, seed=3, kind=weights), weights, threads=2)
    ids = vocabulary(29, BASE.vocab_size)
    heads = [backend.draft_head(None, ids), backend.draft_head(random_adapter(BASE.hidden_size, 9), None)]
    heads.append(backend.draft_head(random_adapter(BASE.hidden_size, 9), ids))
    sequence = backend.sequence(70, poison=True)
    sequence.keep(ALL, 30)
    slots = sequence.append(tokens_of(backend, 70))
    backend.advance([(sequence, slots[-1:])], LAYERS)
    plain, _ = backend.shadow([(sequence, slots[-9:])], ALL)
    for head in heads:
        assert Fresh(backend, head).agrees(sequence, slots[-9:], ALL)
        tokens, _ = backend.shadow([(sequence, slots[-9:])], ALL, head)
        assert (tokens != plain).any(), "the head must matter"
        if head is not heads[1]:
            assert set(tokens.ravel().tolist()) <= set(ids.tolist())


@pytest.mark.parametrize("engine", native_engines())
def test_states_do_not_depend_on_those_beside(engine: Engine) -> None:
    """One product of many states, in chunks of 64 of them, and pieces of a large vocabulary."""
    config = replace(BASE, vocab_size=5_003)
    for weights in ("fp32", "bf16", "int8"):
        model, wanted = random_model(config, seed=3, kind=weights), None
        for threads in (1, 2, 3):
            backend = engine.load(model, weights, threads=threads)
            sequence = backend.sequence(64)
            sequence.keep(ALL, 64)
            slots = sequence.append(tokens_of(backend, 64))
            backend.advance([(sequence, slots[-1:])], LAYERS)
            tokens, shares = backend.shadow([(sequence, slots)], ALL)
            wanted = tokens if wanted is None else wanted
            assert np.array_equal(tokens, wanted), "threads must not matter"
            for rows, layers in ((1, [1]), (1, ALL), (3, [1, 3]), (21, ALL), (64, [2])):
                columns = [layer - 1 for layer in layers]
                part = backend.shadow([(sequence, slots[-rows:])], layers)
                assert np.array_equal(part[0], tokens[-rows:][:, columns])
                assert same_bits(part[1], shares[-rows:][:, columns])


@pytest.mark.parametrize(("name", "weights"), FORMATS)
@pytest.mark.parametrize("engine", all_engines())
def test_keeping_changes_no_bit(engine: Engine, name: str, weights: str) -> None:
    backend = engine.load(random_model(SHAPES[name], seed=3, kind=weights), weights, threads=2)
    layers = backend.config.num_layers
    results = []
    for kept in ([], [1], range(1, layers + 1)):
        sequence = backend.sequence(80, poison=True)
        sequence.keep(kept, 2)
        slots = sequence.append(tokens_of(backend, 67))
        backend.advance([(sequence, slots[-1:])], layers)
        drafts = sequence.branch([5, 6, 7, 8], [-1, 0, -1, 2])
        backend.advance([(sequence, drafts)], 1)
        backend.advance([(sequence, drafts)], layers)
        logits = backend.logits([(sequence, drafts)])
        sequence.commit(drafts[2:])
        caches = [part for layer in range(layers) for part in sequence.kv(layer, range(69))]
        results.append([logits, *caches])
    for other in results[1:]:
        assert all(same_bits(one, two) for one, two in zip(results[0], other, strict=True))


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


@pytest.mark.parametrize("engine", all_engines())
def test_wrong_states_are_noticed(engine: Engine) -> None:
    """Shadows of other layers, of other rows, or of another head are not what these tests would take."""
    backend = engine.load(random_model(BASE, seed=3))
    fresh = Fresh(backend)
    sequence = backend.sequence(12)
    sequence.keep(ALL, 12)
    slots = sequence.append(tokens_of(backend, 12))
    backend.advance([(sequence, slots[-1:])], LAYERS)
    assert fresh.agrees(sequence, slots, ALL)
    original = backend.shadow
    swaps = {
        "layers": lambda work, layers, head: original(work, layers[::-1], head),
        "rows": lambda work, layers, head: original([(work[0][0], work[0][1][::-1])], layers, head),
        "head": lambda work, layers, _: original(work, layers, backend.draft_head(None, np.arange(50))),
    }
    for what, swap in swaps.items():
        backend.shadow = swap  # type: ignore[method-assign,assignment]
        assert not fresh.agrees(sequence, slots, ALL), what
    backend.shadow = original  # type: ignore[method-assign]


@pytest.mark.parametrize("engine", all_engines())
def test_wrong_arguments_are_refused_and_change_nothing(engine: Engine) -> None:
    backend = engine.load(random_model(BASE, seed=3))
    other = engine.load(random_model(SHAPES["odd"], seed=3))
    sequence = backend.sequence(12)
    sequence.keep([1, 3], 4)
    slots = sequence.append([1, 2, 3])
    backend.advance([(sequence, slots[-1:])], LAYERS)
    for layers, positions in (([0], 1), ([LAYERS + 1], 1), ([-1], 1), ([2, 1], 1), ([2, 2], 1), ([1], -1)):
        wrong = str(positions if positions < 0 else layers[-1])
        with pytest.raises(RowError, match=wrong):
            sequence.keep(layers, positions)
    with pytest.raises(RowError):
        sequence.keep([2**40], 1)
    for rows, layers in (([0, 0], [1]), ([3], [1]), ([-1], [1]), ([0], [2]), ([0], [0]), ([0], [4])):
        with pytest.raises(RowError):
            backend.shadow([(sequence, rows)], layers)
    with pytest.raises(RowError):
        backend.shadow([(sequence, [0]), (sequence, [1])], [1])
    with pytest.raises(RowError):
        other.shadow([(sequence, [0])], [1])
    for head in (Stranger(), other.draft_head(None, np.arange(5))):
        with pytest.raises(ConfigurationError, match=r"draft_head\(\)"):
            backend.shadow([(sequence, [0])], [1], head)
    assert sequence.kept == 3
    assert Fresh(backend).agrees(sequence, slots, [1, 3])
    sequence.keep([1], 2**40)  # any number of positions is fine


@pytest.mark.parametrize("engine", native_engines())
def test_a_state_that_is_no_number_is_refused(engine: Engine) -> None:
    model = random_model(BASE, seed=3)
    model.weights["down", 1][:] = np.float32(3e38)
    backend = engine.load(model)
    sequence = backend.sequence(4)
    sequence.keep(ALL, 4)
    slots = sequence.append([1, 2])
    backend.advance([(sequence, slots)], LAYERS)
    backend.shadow([(sequence, slots)], [1])
    with pytest.raises(NumericalError):
        backend.shadow([(sequence, slots)], [1, LAYERS])


@pytest.mark.parametrize("engine", native_engines()[-1:])
def test_a_sequence_in_use_is_refused(engine: Engine) -> None:
    config = replace(BASE, hidden_size=256, intermediate_size=512, head_dim=64, max_position=8192)
    backend = engine.load(random_model(config, seed=3))
    sequence = backend.sequence(8192)
    sequence.keep([1], 4)
    slots = sequence.append([1] * 8192)
    thread = threading.Thread(target=backend.advance, args=([(sequence, slots[-1:])], LAYERS))
    thread.start()
    refused = False
    while thread.is_alive() and not refused:
        try:
            _ = sequence.kept
        except RowError:
            refused = True
    assert refused, "the sequence was never seen in use"
    with pytest.raises(RowError, match="in use"):
        sequence.keep([2], 1)
    with pytest.raises(RowError, match="in use"):
        backend.shadow([(sequence, slots[-1:])], [1])
    thread.join()
    assert sequence.kept == 4
