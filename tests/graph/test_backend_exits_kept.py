"""Launches of early exits that fail, or that there is no memory for, and how long they are kept."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Sequence as Seq
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from specee.backends.cuda_exit_round import ExitShape  # noqa: E402
from specee.backends.cuda_exit_rounds import ExitLaunch  # noqa: E402
from specee.backends.cuda_recorded import Parts  # noqa: E402
from specee.backends.protocol import RankCall, RoundCall  # noqa: E402
from specee.cuda.exit_record import decode_exits  # noqa: E402
from specee.cuda.graph import Means  # noqa: E402
from specee.errors import DeviceError, NumericalError, OutOfMemoryError  # noqa: E402
from tests.graph.exit_pair import (  # noqa: E402
    CANDIDATES,
    CAPACITY,
    EVERY,
    GREEDY,
    LAYERS,
    WAITING,
    Text,
    bits,
    both,
    contents,
    leave,
    same,
    scripted,
)
from tests.graph.fake_driver import FakeDriver  # noqa: E402
from tests.graph.place import Place, emulated  # noqa: E402

REFUSED = 1  # CUDA_ERROR_INVALID_VALUE
ONCE = ["cuMemcpyHtoDAsync_v2", "cuGraphLaunch", "cuMemcpyDtoHAsync_v2", "cuStreamSynchronize"]


def test_numbers_that_are_none(place: Place, rng: np.random.Generator) -> None:
    """Where a head confirms, and after all layers; nothing is booked then."""
    for leaves in (2, None):
        pair = scripted(place, rng, leaves, vocabulary=CANDIDATES + 4)
        texts, _ = both(pair, rng)
        for _ in range(2):
            leave(texts, [()] * 2, [0.5] * 2)
        assert pair.whole.taken == 1
        backend = pair.whole.backend
        backend._table.matrix(*backend._table.head_key)[3].fill_(float("nan"))
        before = [contents(text.state) for text in texts]
        calls = [text.call(EVERY, 0.5) for text in texts]
        with pytest.raises(NumericalError, match="sequence 0 of 2 has a logit that is not a number"):
            backend._exits.turn(pair.whole.exits, calls, [range(4, 4 + CANDIDATES)] * 2)
        assert [contents(text.state) for text in texts] == before
        (launch,) = backend._kept._rounds._known.values()
        record = launch._parts.state.result.cpu().numpy().tobytes()  # type: ignore[attr-defined]
        ran = decode_exits(record, 2)
        assert (ran.layers, ran.heads) == (leaves or LAYERS, 1)


def test_emulated_launches_that_fail(fake: FakeDriver, rng: np.random.Generator) -> None:
    """Whatever fails: it is told, nothing is booked, and the next call does what steps do."""
    pair = scripted(emulated(fake), rng, 2)
    whole, steps = both(pair, rng)
    for texts in (whole, steps):
        for _ in range(4):
            leave(texts, [EVERY] * 2, [0.5] * 2)
    assert pair.whole.taken > 0
    before = [contents(text.state) for text in whole]
    drafted = calls_of_drafts(fake, whole)
    failed = 0
    for at in (*range(1, drafted, 13), *range(drafted, 5000)):
        fake.fail(at)
        try:
            found = bits(leave(whole, [EVERY] * 2, [0.5] * 2).exits)
        except DeviceError:
            failed += at > drafted
            assert [contents(text.state) for text in whole] == before
            continue
        finally:
            fake.fail(0)
        break
    assert failed >= len(ONCE)
    assert found == bits(leave(steps, [EVERY] * 2, [0.5] * 2).exits)
    same(whole, steps)


def calls_of_drafts(fake: FakeDriver, texts: Seq[Text]) -> int:
    """Of the driver, before the launch, once columns have caught up."""
    side, calls = texts[0].side, [text.call(EVERY, 0.5) for text in texts]
    ranks = [RankCall(call.sequence, call.column, call.slot) for call in calls if call.layers]
    for _ in range(2):
        begin = fake.calls()
        side.backend.rank(side.drafter, ranks, CANDIDATES)
    assert fake.calls() > begin
    return fake.calls() - begin


def test_emulated_rounds_that_cannot_be_graphs(fake: FakeDriver, rng: np.random.Generator) -> None:
    """What fails while one is made is told, and steps go on."""
    pair = scripted(emulated(fake), rng, 2)
    whole, steps = both(pair, rng)
    side, kept = pair.whole, pair.whole.backend._kept
    exits = side.backend._exits
    leave(whole, [EVERY] * 2, [0.5] * 2)
    leave(steps, [EVERY] * 2, [0.5] * 2)
    waiting = exits._wanted([text.call(EVERY, 0.5) for text in whole])
    assert waiting is not None
    shape = exits._shape(waiting, side.exits)
    assert shape is not None
    sequences = [one.sequence for one in waiting]

    def make(means: Means) -> ExitLaunch:
        return ExitLaunch(exits._parts.make_exits(sequences, shape), means)

    for at in range(1, 2000, 7):
        fake.fail(at, REFUSED)
        made = kept.round(sequences, shape, make)
        fake.fail(0)
        if made is not None:
            break
        if kept.failed:
            assert "a round with early exits could not be made a graph" in (side.backend.graphs_missing or "")
            assert not kept
            kept.failed.clear()
    assert at > 100, "there is a lot that can fail"
    kept.failed[ExitShape] = "a round with early exits could not be made a graph"
    for _ in range(3):
        found = [bits(leave(texts, [EVERY] * 2, [0.5] * 2).exits) for texts in (whole, steps)]
        assert found[0] == found[1]
    same(whole, steps)
    assert side.taken == 0
    text = side.backend.sequence(CAPACITY)
    text.append([1, 2])
    side.backend.run_rounds([RoundCall(text, GREEDY, (), 9)], turns=4)
    assert side.backend._rounds.taken == 2, "plain rounds go on being launches"


def test_emulated_exits_of_old_drivers_go_step_by_step(old_library: Path, rng: np.random.Generator) -> None:
    pair = scripted(emulated(FakeDriver(old_library)), rng, 2)
    whole, steps = both(pair, rng)
    for _ in range(3):
        found = [bits(leave(texts, [EVERY] * 2, [0.5] * 2).exits) for texts in (whole, steps)]
        assert found[0] == found[1]
    assert pair.whole.backend.graphs_missing is not None
    assert pair.whole.taken == 0


def test_a_round_goes_with_its_sequences(place: Place, rng: np.random.Generator) -> None:
    pair = scripted(place, rng, 2)
    texts, others = both(pair, rng)
    del others
    for _ in range(3):
        leave(texts, [EVERY] * 2, [0.5] * 2)
    assert len(pair.whole.backend._kept) > 0
    texts.pop()
    gc.collect()
    assert len(pair.whole.backend._kept) == 0


def test_a_round_that_does_not_fit_goes_step_by_step(place: Place, rng: np.random.Generator) -> None:
    pair = scripted(place, rng, 2)
    whole, steps = both(pair, rng)
    exits = pair.whole.backend._exits
    exits._parts = replace(exits._parts, free=lambda: 1000)
    for _ in range(4):
        found = [bits(leave(texts, [EVERY] * 2, [0.5] * 2).exits) for texts in (whole, steps)]
        assert found[0] == found[1]
    same(whole, steps)
    assert pair.whole.taken == 0
    assert pair.whole.backend.graphs_missing is None, "others may fit"


def test_generations_in_turn_keep_their_rounds(
    place: Place, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three, whose texts wait in each of the rooms that rounds have; none is made anew later."""
    pair = scripted(place, rng, 2)
    made: list[int] = []
    make = Parts.make_exits

    def counted(parts: Parts, sequences: Seq[Any], shape: ExitShape) -> Any:
        made.append(shape.rows)
        return make(parts, sequences, shape)

    monkeypatch.setattr(Parts, "make_exits", counted)
    generations = [pair.texts(pair.whole, [[1, 2, 3]], [GREEDY]) for _ in range(3)]
    for rounds in (2, 1):
        before = len(made), pair.whole.taken
        for _ in range(rounds * (WAITING + 1)):
            for texts in generations:
                leave(texts, [EVERY], [0.5])
        assert sorted(made) == [1] * 3 + [8] * 3 + [17] * 3
    assert len(made) == before[0]
    assert pair.whole.taken - before[1] == 3 * (WAITING + 1), "all of them are launches"


def test_predictors_go_with_the_last_of_their_texts(place: Place, rng: np.random.Generator) -> None:
    """What is known of rounds that came once, or did not fit, keeps no network alive."""
    pair = scripted(place, rng, 2)
    exits = pair.whole.backend._exits
    exits._parts = replace(exits._parts, free=lambda: 1000)
    texts, _ = both(pair, rng)
    for _ in range(4):
        leave(texts, [EVERY] * 2, [0.5] * 2)
    gone = weakref.ref(pair.whole.exits)
    pair.whole.exits = None
    gc.collect()
    assert gone() is not None, "the negative control"
    texts.clear()
    gc.collect()
    assert gone() is None


def test_states_are_copies_of_their_rows_alone(
    place: Place, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In rounds with room for eight rows; where there is no memory for them, nothing is booked."""
    pair = scripted(place, rng, 2)
    texts, _ = both(pair, rng)
    for _ in range(4):
        leave(texts, [EVERY] * 2, [0.5] * 2)
    assert pair.whole.taken == 2
    newest = texts[0].state.find(texts[0].state.length - 2)
    assert newest.hidden.untyped_storage().nbytes() == LAYERS * pair.config.hidden_size * 4
    before = [contents(text.state) for text in texts]
    calls = [text.call(EVERY, 0.5) for text in texts]
    backend, full = pair.whole.backend, True
    kind: type[Exception] = torch.cuda.OutOfMemoryError
    clone = torch.Tensor.clone

    def short(tensor: Any) -> Any:
        """Until rounds make way, if that is of use."""
        if full or backend._kept:
            raise kind("told to")
        return clone(tensor)

    def turn() -> Any:
        with monkeypatch.context() as patched:
            patched.setattr(torch.Tensor, "clone", short)
            return backend._exits.turn(pair.whole.exits, calls, [range(CANDIDATES)] * 2)

    with pytest.raises(OutOfMemoryError, match="hidden states of 2 rows after 5 layers do not fit"):
        turn()
    assert not backend._kept, "they have made way"
    assert [contents(text.state) for text in texts] == before
    assert pair.whole.taken == 2
    full = False
    assert turn() is None, "it comes twice again"
    assert [one.layer for one in turn().exits] == [2, 2]
    assert not backend._kept
    assert pair.whole.taken == 3
    for text in texts:
        text.state.append([3])
    for _ in range(2):
        leave(texts, [EVERY] * 2, [0.5] * 2)
    kind = RuntimeError
    calls, taken = [text.call(EVERY, 0.5) for text in texts], pair.whole.taken
    with pytest.raises(RuntimeError, match=r"^told to$"):
        turn()
    assert pair.whole.taken == taken
