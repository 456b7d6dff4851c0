"""Rounds that are kept, go with their sequences, make way for texts, or cannot be graphs at all."""

from __future__ import annotations

import gc
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from specee.backends.cuda_recorded import means_on  # noqa: E402
from specee.backends.cuda_round import Shape  # noqa: E402
from specee.backends.protocol import RoundCall  # noqa: E402
from specee.errors import ConfigurationError, OutOfMemoryError  # noqa: E402
from tests.cuda.recorder import Recorder  # noqa: E402
from tests.graph.fake_driver import FakeDriver  # noqa: E402
from tests.graph.place import Place, emulated  # noqa: E402
from tests.graph.round_pair import GREEDY, NOBODY, Pair, drafting, plain  # noqa: E402

REFUSED = 1  # CUDA_ERROR_INVALID_VALUE


def test_a_round_goes_with_its_sequences(place: Place, rng: np.random.Generator) -> None:
    pair = Pair(place, rng)
    sequences = pair.sequences(pair.whole)
    plain(4)(pair.whole, sequences)
    drafting(3, 1, 1)(pair.whole, sequences)
    assert len(pair.whole._kept) == 2
    sequences.pop()
    gc.collect()
    assert len(pair.whole._kept) == 0


def test_a_backend_goes_at_once(place: Place, rng: np.random.Generator) -> None:
    """Its weights are gigabytes: they do not wait for a collector of cycles."""
    import weakref

    pair = Pair(place, rng)
    sequences = pair.sequences(pair.whole)
    plain(4)(pair.whole, sequences)
    seen = weakref.ref(pair.whole)
    gc.disable()
    try:
        del sequences
        del pair.whole
        assert seen() is None
    finally:
        gc.enable()


def test_emulated_rounds_that_cannot_be_graphs(fake: FakeDriver, rng: np.random.Generator) -> None:
    """What fails while one is made is told, and steps go on."""
    pair = Pair(emulated(fake), rng)
    expected = [turn.texts for turn in plain(5)(pair.steps, pair.sequences(pair.steps))]
    sequences = pair.sequences(pair.whole)
    found = [turn.texts for turn in plain(2)(pair.whole, sequences)]
    for at in range(1, 400):
        fake.fail(at, REFUSED)
        wanted = pair.whole._rounds._wants.of([RoundCall(one, GREEDY, (), 9) for one in sequences], NOBODY)
        assert wanted is not None
        made = pair.whole._rounds._round(wanted)
        fake.fail(0)
        if made is not None:
            break
        assert "could not be made a graph" in (pair.whole.graphs_missing or "")
        assert not pair.whole._kept
        pair.whole._kept.failed.clear()
        pair.whole._rounds._round(wanted)  # it has to come again
    assert at > 10, "there is a lot that can fail"
    pair.whole._kept.failed[Shape] = "a round could not be made a graph"
    found += [turn.texts for turn in plain(3)(pair.whole, sequences)]
    assert found == expected
    assert pair.taken == 0


def test_emulated_rounds_that_the_driver_has_no_memory_for(
    fake: FakeDriver, rng: np.random.Generator
) -> None:
    """They are too large, wherever the driver says so; others may fit."""
    pair = Pair(emulated(fake), rng)
    sequences = pair.sequences(pair.whole)
    for at in (3, 10, 30):
        plain(2)(pair.whole, sequences)
        fake.fail(at)
        before = len(fake.log())
        plain(1)(pair.whole, sequences)
        assert len([line for line in fake.log()[before:] if line.endswith("FAILS")]) == 1
        fake.fail(0)
        assert pair.whole.graphs_missing is None
        plain(2)(pair.whole, sequences)
        assert pair.taken == 0, "it is not tried again"
        sequences = pair.sequences(pair.whole)
    plain(3)(pair.whole, sequences)
    assert pair.taken == 1


def test_memory_for_texts_goes_first(place: Place, rng: np.random.Generator) -> None:
    """A round that does not fit is not tried again, and kept ones make way for new texts."""
    pair = Pair(place, rng)
    free: list[int] = [1 << 40]
    pair.whole._rounds._parts = replace(pair.whole._rounds._parts, free=lambda: free[0])
    pair.whole._free = lambda: free[0] if len(pair.whole._kept) else 1 << 40
    sequences = pair.sequences(pair.whole)
    plain(4)(pair.whole, sequences)
    assert pair.taken == 2
    free[0] = 1000
    drafting(4, 2, 1)(pair.whole, sequences)
    assert pair.taken == 2
    assert pair.whole.graphs_missing is None, "others may fit"
    assert len(pair.whole._kept) == 0
    free[0] = 1 << 40
    drafting(4, 2, 1)(pair.whole, sequences)
    assert pair.taken == 2
    plain(3)(pair.whole, sequences)
    assert pair.taken == 4, "it comes twice again"
    free[0] = 1000
    assert pair.whole.sequence(8).capacity == 8
    assert len(pair.whole._kept) == 0
    pair.whole._free = lambda: 1000
    with pytest.raises(OutOfMemoryError, match="a bf16 KV cache of 8 positions"):
        pair.whole.sequence(8)


def test_two_generations_side_by_side(place: Place, rng: np.random.Generator) -> None:
    """Their rounds come in turn, and both are known."""
    pair = Pair(place, rng)
    sequences = pair.sequences(pair.whole)
    for _ in range(4):
        for one in sequences:
            plain(1, [GREEDY])(pair.whole, [one])
    assert pair.taken == 2 * 2


def test_graphs_can_be_switched_off(fake: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    launcher = emulated(fake).launcher
    device = torch.device("cuda", 3)
    for value, off in (("", False), ("1", False), ("0", True)):
        monkeypatch.setenv("SPECEE_CUDA_GRAPHS", value)
        means = means_on(device, launcher)
        assert means is not None
        assert means.one_by_one is off
    monkeypatch.setenv("SPECEE_CUDA_GRAPHS", "no")
    with pytest.raises(ConfigurationError, match="SPECEE_CUDA_GRAPHS='no': allowed are 0 and 1"):
        means_on(device, launcher)
    assert means_on(torch.device("cpu"), launcher) is None
    assert means_on(device, Recorder()) is None, "a launcher that has no handles"


def test_kernels_are_those_of_the_backends_device() -> None:
    asked: list[tuple[str, int]] = []

    class Numbered(Recorder):
        def function(self, kernel: str, device: int = 0) -> int:
            asked.append((kernel, device))
            return 1

    means = means_on(torch.device("cuda", 3), Numbered())
    assert means is not None
    means.function("end_round")
    assert asked == [("end_round", 3)]
