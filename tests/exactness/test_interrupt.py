"""Native calls let other threads run, and hear Ctrl-C between row blocks."""

from __future__ import annotations

import os
import signal
import threading
from dataclasses import replace

import numpy as np
import pytest

from specee.errors import RowError
from tests.engines import Engine, native_engines
from tests.random_model import BASE, RandomModel, random_model

PROMPT = 8192


def wide_model() -> RandomModel:
    """Slow enough on a long prompt that a signal arrives long before the end."""
    config = replace(BASE, hidden_size=256, intermediate_size=512, head_dim=64, max_position=PROMPT)
    return random_model(config, seed=5)


@pytest.mark.parametrize("engine", native_engines())
def test_ctrl_c_stops_a_long_prompt_and_leaves_it_usable(engine: Engine) -> None:
    """The thread that sends the signal runs only because the GIL is free while the prompt is computed."""
    backend = engine.load(wide_model())
    sequence = backend.sequence(PROMPT)
    slots = sequence.append([1] * PROMPT)
    over = threading.Event()

    def interrupt() -> None:
        while not over.is_set():
            try:
                _ = sequence.length, sequence.frontier
            except RowError:  # in use: the call is under way, and this thread runs beside it
                os.kill(os.getpid(), signal.SIGINT)
                return

    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            backend.advance([(sequence, slots[-1:])], backend.config.num_layers)
    finally:
        over.set()
        thread.join()

    frontier = sequence.frontier
    assert 0 < frontier[-1] < PROMPT
    assert frontier == (frontier[0],) * backend.config.num_layers
    kept = frontier[-1]
    sequence.rollback(PROMPT - kept - 3)
    backend.advance([(sequence, [kept + 2])], backend.config.num_layers)

    fresh = backend.sequence(PROMPT)
    fresh.append([1] * (kept + 3))
    backend.advance([(fresh, [kept + 2])], backend.config.num_layers)
    assert np.array_equal(backend.hidden([(sequence, [kept + 2])]), backend.hidden([(fresh, [kept + 2])]))
