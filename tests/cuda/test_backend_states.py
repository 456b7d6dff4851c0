"""States of a long prompt are held for one pass, unless somebody may still ask for them."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from specee.backends.cuda import CudaBackend  # noqa: E402
from specee.backends.cuda_layers import CudaLayers, Placed  # noqa: E402
from specee.backends.reference_sequence import ReferenceSequence  # noqa: E402
from specee.cuda.tiles import MAX_LINEAR_ROWS  # noqa: E402
from tests.cuda.emulator import LibraryLauncher, compiler, fresh_seed  # noqa: E402
from tests.cuda.recorder import CONFIG, small  # noqa: E402

LAST, ROWS = CONFIG.num_layers, 2 * MAX_LINEAR_ROWS + 40
KEEP = 3


def held(sequence: ReferenceSequence) -> tuple[int, int]:
    """How many rows have a hidden state, how many have kept ones."""
    rows = sequence._committed
    return sum(row.hidden is not None for row in rows), sum(bool(row.kept) for row in rows)


def most_held(
    monkeypatch: pytest.MonkeyPatch,
    backend: CudaBackend,
    sequences: Seq[ReferenceSequence],
    work: Any,
    to: int,
) -> tuple[int, int, int]:
    """The most that ``sequences`` hold when a pass begins, and how many passes there were."""
    seen: list[tuple[int, int]] = []
    run = CudaLayers.run

    def counted(self: CudaLayers, rows: Seq[Placed], to_layer: int) -> None:
        counts = [held(sequence) for sequence in sequences]
        seen.append((sum(count[0] for count in counts), sum(count[1] for count in counts)))
        run(self, rows, to_layer)

    with monkeypatch.context() as patched:
        patched.setattr(CudaLayers, "run", counted)
        backend.advance(work, to)
    return max(one[0] for one in seen), max(one[1] for one in seen), len(seen)


def test_passes_of_a_prompt_leave_only_what_is_promised(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = small()
    sequences = [backend.sequence(200) for _ in range(2)]
    for sequence in sequences:
        sequence.keep([1, LAST], KEEP)
    slots = [sequence.append([1] * ROWS) for sequence in sequences]
    named = [[0, ROWS - 1], [ROWS - 1]]
    work = list(zip(sequences, named, strict=True))
    states, kept, passes = most_held(monkeypatch, backend, sequences, work, LAST)
    assert passes == -(-2 * ROWS // MAX_LINEAR_ROWS)
    assert (states, kept) == (1, 2 * KEEP), "the first row is named"
    assert [held(sequence) for sequence in sequences] == [(2, KEEP), (1, KEEP)]
    assert [sequence.kept for sequence in sequences] == [KEEP, KEEP]
    assert all(len(own) == ROWS for own in slots)


def test_rows_that_wait_or_are_named_hold_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control: nothing that a later call takes up is let go."""
    backend = small()
    waits, named = (backend.sequence(200) for _ in range(2))
    work: Any = [(waits, [waits.append([1] * ROWS)[-1]])]
    assert most_held(monkeypatch, backend, [waits], work, 1)[0] == 2 * MAX_LINEAR_ROWS
    assert held(waits)[0] == ROWS
    work = [(named, named.append([1] * ROWS))]
    assert most_held(monkeypatch, backend, [named], work, LAST)[0] == 2 * MAX_LINEAR_ROWS
    assert held(named)[0] == ROWS


def test_states_that_are_left_have_the_same_bits() -> None:
    """One call with a long prompt says what calls of a pass each say, and what naming every row says."""
    if compiler() is None:
        pytest.skip("no C++ compiler: the kernels' logic is not run on the host")
    backend = small(launcher=LibraryLauncher(fresh_seed("order of threads")))
    rng = np.random.default_rng(fresh_seed("prompt"))
    prompt = [int(token) for token in rng.integers(0, CONFIG.vocab_size, MAX_LINEAR_ROWS + 5)]
    named, told = [7, len(prompt) - 1], []
    for way in ("one call", "a pass each", "all named"):
        sequence = backend.sequence(100, poison=True)
        sequence.keep([1, LAST], KEEP)
        slots = sequence.append(prompt)
        if way == "a pass each":
            backend.advance([(sequence, slots[:MAX_LINEAR_ROWS])], 2)
        backend.advance([(sequence, slots if way == "all named" else named)], LAST)
        latest = slots[-KEEP:]
        told.append(
            [
                backend.hidden([(sequence, named)]),
                np.stack([sequence.kept_state(slot, 1).numpy() for slot in latest]),
                np.stack([sequence.kept_state(slot, LAST).numpy() for slot in latest]),
                *(part for layer in range(LAST) for part in sequence.kv(layer, slots)),
            ]
        )
    for other in told[1:]:
        for one, two in zip(told[0], other, strict=True):
            assert np.isfinite(one).all()
            assert np.array_equal(one, two)
