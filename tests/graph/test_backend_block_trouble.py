"""Rounds with chains of a drafter block where something goes wrong, or away."""

from __future__ import annotations

import weakref

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from specee.backends.protocol import CopyCall  # noqa: E402
from specee.errors import DeviceError, NumericalError, RowError  # noqa: E402
from tests.graph.block_pair import Blocks, nearly_right  # noqa: E402
from tests.graph.fake_driver import FakeDriver  # noqa: E402
from tests.graph.place import Place, emulated  # noqa: E402
from tests.graph.round_pair import CAPACITY, Pair  # noqa: E402


def test_states_that_are_no_numbers(place: Place, rng: np.random.Generator) -> None:
    """Drafts that they make are told of as in steps, and nothing is booked."""
    for launched in (False, True):
        pair = Pair(place, rng, "tiles")
        blocks = Blocks(pair, nearly_right(pair, rng, 0.2))
        backend = pair.whole if launched else pair.steps
        sequences = blocks.begin(backend)
        blocks.rounds(backend, sequences, 3)
        row = sequences[1].find(sequences[1].length - 2)
        kept, row.kept = row.kept, {layer: state * float("nan") for layer, state in row.kept.items()}
        before = [blocks.left(*one)[0][0] for one in zip(sequences, blocks.columns, strict=True)]
        with pytest.raises(NumericalError, match="has a logit that is not a number"):
            blocks.rounds(backend, sequences, 1)
        assert [blocks.left(*one)[0][0] for one in zip(sequences, blocks.columns, strict=True)] == before
        row.kept = kept
        taken = backend._rounds.taken
        blocks.rounds(backend, sequences, 1)
        assert backend._rounds.taken - taken == int(launched)


def test_a_head_that_is_no_number(place: Place, rng: np.random.Generator) -> None:
    """At verification: columns have not seen what is no text."""
    pair = Pair(place, rng, "tiles")
    vocabulary = np.arange(pair.config.vocab_size)
    blocks = Blocks(pair, nearly_right(pair, rng, 0.2), head=(None, vocabulary, "Q8_0"))
    sequences = blocks.begin(pair.whole)
    blocks.rounds(pair.whole, sequences, 3)
    matrix = pair.whole._table.matrix(*pair.whole._table.head_key)
    before, bits = [column.tokens[:] for column in blocks.columns], matrix.clone()
    matrix.fill_(float("nan"))  # what drafts are read off is another one
    with pytest.raises(NumericalError, match="has a logit that is not a number"):
        blocks.rounds(pair.whole, sequences, 1)
    assert [column.tokens for column in blocks.columns] == before
    matrix.copy_(bits)
    blocks.rounds(pair.whole, sequences, 1)
    assert pair.taken == 3


def test_a_launch_that_fails(fake: FakeDriver, rng: np.random.Generator) -> None:
    """The texts go on from where they were."""
    pair = Pair(emulated(fake), rng, "tiles")
    blocks = Blocks(pair, nearly_right(pair, rng, 0.2))
    expected = [turn.texts for turn in blocks.rounds(pair.steps, blocks.begin(pair.steps), 8)]
    sequences = blocks.begin(pair.whole)
    found = [turn.texts for turn in blocks.rounds(pair.whole, sequences, 3)]
    for at in range(1, 6):
        fake.fail(at, 719)
        with pytest.raises(DeviceError):
            blocks.rounds(pair.whole, sequences, 1)
        fake.fail(0)
        found += [turn.texts for turn in blocks.rounds(pair.whole, sequences, 1)]
    assert found == expected
    assert pair.taken == 2 + 5


def test_a_round_goes_with_its_columns(place: Place, rng: np.random.Generator) -> None:
    """A text that is gone on with has others in each generation."""
    pair = Pair(place, rng, "tiles")
    blocks = Blocks(pair, nearly_right(pair, rng, 0.2))
    sequences = blocks.begin(pair.whole)
    gone = []
    for _ in range(3):
        blocks.columns = [blocks.drafter.column(CAPACITY, "fp16") for _ in sequences]
        gone += [weakref.ref(column) for column in blocks.columns]
        blocks.rounds(pair.whole, sequences, 3)
        assert len(pair.whole._kept) == 1
    assert [one() is None for one in gone] == [True] * 4 + [False] * 2
    blocks.columns = []
    assert gone[-1]() is None
    assert len(pair.whole._kept) == 0


def test_a_round_goes_with_its_sequences(place: Place, rng: np.random.Generator) -> None:
    pair = Pair(place, rng, "tiles")
    blocks = Blocks(pair, nearly_right(pair, rng, 0.2))
    sequences = blocks.begin(pair.whole)
    blocks.rounds(pair.whole, sequences, 3)
    assert len(pair.whole._kept) == 1
    del sequences
    assert len(pair.whole._kept) == 0


def test_mistakes_are_told_as_in_steps(place: Place, rng: np.random.Generator) -> None:
    pair = Pair(place, rng, "tiles")
    blocks = Blocks(pair, nearly_right(pair, rng, 0.2))
    sequences = blocks.begin(pair.whole)
    blocks.rounds(pair.whole, sequences, 3)
    own, before = list(blocks.columns), pair.taken
    blocks.columns = [own[0]] * 2
    with pytest.raises(RowError, match="a drafter's column appears twice"):
        blocks.rounds(pair.whole, sequences, 1)
    short = blocks.drafter.column(8, "fp16")
    blocks.columns = [short, own[1]]
    with pytest.raises(RowError, match="column of 8 positions has no room"):
        blocks.rounds(pair.whole, sequences, 1)
    blocks.columns = own
    index = pair.whole.copies(3, 1)
    for copies, match in (
        ([CopyCall(index, 0, 0.0)] * 2, "copies of 0 tokens"),
        ([CopyCall(index, 2, 0.0)] * 2, "an index of n-grams appears twice"),
    ):
        calls = [
            call._replace(copies=own)
            for call, own in zip(blocks.calls(sequences, (2, 2)), copies, strict=True)
        ]
        with pytest.raises(RowError, match=match):
            blocks.round(pair.whole, calls)
    assert pair.taken == before
    blocks.rounds(pair.whole, sequences, 1)
    assert pair.taken == before + 1
