"""Long contexts, which threads share out by position: the bits of one thread that takes everything itself.

Chunks of 128 to 192 positions, whole heads or parts of them, rows together or alone: none of it may show. The
yardstick is one thread and one row a call; three key/value heads divide among neither two nor four threads.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from specee.backends.protocol import Backend
from tests.engines import Engine, native_engines
from tests.random_model import BASE, RandomModel, random_model

LENGTH, ROWS = 1100, 6
CONFIG = replace(
    BASE, num_layers=2, windows=(0, 600), num_heads=12, num_kv_heads=3, head_dim=24, max_position=1200
)


@pytest.fixture(scope="module")
def model() -> RandomModel:
    return random_model(CONFIG, seed=8)


@pytest.fixture(scope="module", params=["fp16", "fp32"])
def cache(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def text(seed: int) -> list[int]:
    return np.random.default_rng(seed).integers(0, CONFIG.vocab_size, LENGTH + ROWS).tolist()


def last_rows(backend: Backend, cache: str, tokens: list[int], pieces: list[int]) -> np.ndarray:
    """Bits of the last ROWS hidden states, taken through the layers in calls of the given sizes."""
    sequence = backend.sequence(len(tokens), cache, poison=True)
    sequence.append(tokens[:LENGTH])
    backend.advance([(sequence, [LENGTH - 1])], CONFIG.num_layers)
    states = []
    for begin, end in pairwise(np.cumsum([0, *pieces]).tolist()):
        slots = list(sequence.append(tokens[LENGTH + begin : LENGTH + end]))
        backend.advance([(sequence, slots)], CONFIG.num_layers)
        states.append(backend.hidden([(sequence, slots)]))
    return np.concatenate(states).view(np.uint32)


@pytest.mark.parametrize("engine", native_engines())
def test_threads_and_rows_do_not_change_a_bit(engine: Engine, model: RandomModel, cache: str) -> None:
    tokens = text(seed=1)
    wanted = last_rows(engine.load(model, threads=1), cache, tokens, [1] * ROWS)
    for threads in (1, 2, 4):
        backend = engine.load(model, threads=threads)
        for pieces in ([1] * ROWS, [ROWS], [2, 4]):
            assert np.array_equal(last_rows(backend, cache, tokens, pieces), wanted), (threads, pieces)


@pytest.mark.parametrize("engine", native_engines())
def test_a_branch_of_a_tree_has_the_bits_of_the_chain(engine: Engine, model: RandomModel, cache: str) -> None:
    tokens = text(seed=2)
    wanted = last_rows(engine.load(model, threads=1), cache, tokens, [1] * ROWS)
    backend = engine.load(model, threads=2)
    sequence = backend.sequence(LENGTH + 2 * ROWS, cache, poison=True)
    sequence.append(tokens[:LENGTH])
    # Two chains from the same root, woven into each other, so that the true one is scattered over slots.
    woven = [token for true in tokens[LENGTH:] for token in ((true + 1) % CONFIG.vocab_size, true)]
    slots = sequence.branch(woven, [index - 2 if index >= 2 else -1 for index in range(len(woven))])
    backend.advance([(sequence, slots[:8])], CONFIG.num_layers)
    backend.advance([(sequence, slots[8:])], CONFIG.num_layers)
    assert np.array_equal(backend.hidden([(sequence, slots[1::2])]).view(np.uint32), wanted)
    assert not np.array_equal(backend.hidden([(sequence, slots[::2])]).view(np.uint32), wanted)
