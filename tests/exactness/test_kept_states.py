"""Which states are kept: the window of the latest positions, through rollbacks and passes."""

from __future__ import annotations

import pytest

from tests.engines import Engine, all_engines
from tests.exactness.kept import FORMATS, LAYERS, Fresh, is_kept, tokens_of
from tests.exactness.test_draft_heads import same_bits
from tests.random_model import BASE, SHAPES, random_model


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
