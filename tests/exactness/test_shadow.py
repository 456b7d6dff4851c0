"""Shadow tokens: what a layer would draft, as a fresh sequence at that layer drafts it."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest

from specee.errors import ConfigurationError, NumericalError, RowError
from tests.engines import Engine, all_engines, native_engines
from tests.exactness.draws import text_of
from tests.exactness.kept import FORMATS, LAYERS, Fresh, is_kept, tokens_of
from tests.exactness.test_draft_heads import Stranger, random_adapter, same_bits, vocabulary
from tests.random_model import BASE, SHAPES, random_model

ALL = range(1, LAYERS + 1)


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
