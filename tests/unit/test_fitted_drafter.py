"""The drafter block: both backends alike, and columns that have caught up like new ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest

from specee.backends.drafter_parts import matrix_bytes
from specee.backends.protocol import (
    Backend,
    ChainCall,
    DraftFormat,
    FittedColumn,
    FittedDrafter,
    SequenceState,
)
from specee.errors import CapacityError, ConfigurationError, RowError
from specee.types import Sampling
from tests.engines import Engine, all_engines
from tests.random_drafter import random_parts
from tests.random_model import BASE, random_model

LAYERS = (1, BASE.num_layers)
GREEDY = Sampling()
Chain = tuple[list[int], list[float]]


@pytest.fixture
def rng() -> np.random.Generator:
    seed = int(np.random.default_rng().integers(2**32))
    print("seed", seed)
    return np.random.default_rng(seed)


def text(rng: np.random.Generator, length: int) -> list[int]:
    return rng.integers(BASE.vocab_size, size=length).tolist()


def begun(backend: Backend, tokens: Sequence[int], positions: int = 200, room: int = 40) -> SequenceState:
    """All but the newest token computed."""
    sequence = backend.sequence(len(tokens) + room, "fp32", poison=True)
    sequence.keep(LAYERS, positions)
    go_on(backend, sequence, tokens)
    return sequence


def go_on(backend: Backend, sequence: SequenceState, tokens: Sequence[int]) -> None:
    """Append, and compute all but the newest."""
    slots = list(sequence.append(tokens))
    before = [slot for slot in range(sequence.length - 1) if sequence.row(slot).done < BASE.num_layers]
    assert slots
    if before:
        backend.advance([(sequence, before)], BASE.num_layers)


def call(
    drafter: FittedDrafter,
    sequence: SequenceState,
    column: FittedColumn | None = None,
    *,
    length: int = 5,
    stop_below: float = 0.0,
    sampling: Sampling = GREEDY,
) -> ChainCall:
    if column is None:
        column = drafter.column(sequence.capacity, "fp32")
    return ChainCall(sequence, column, length, stop_below, sampling)


@pytest.fixture
def drafter(engine: Backend, rng: np.random.Generator) -> FittedDrafter:
    return engine.drafter(random_parts(BASE, LAYERS, rng))


@pytest.mark.parametrize(
    ("kind", "stored", "plain"),
    [("fp32", "Q8_0", False), ("bf16", "Q4_1", False), ("int8", "Q4_1", False), ("fp32", "Q8_0", True)],
)
@pytest.mark.parametrize("native", all_engines()[1:])
def test_backends_draft_alike(
    native: Engine, kind: str, stored: DraftFormat, plain: bool, rng: np.random.Generator
) -> None:
    parts = random_parts(BASE, LAYERS, rng, plain=plain)
    seed = int(rng.integers(2**31))
    model = random_model(BASE, seed=seed, kind=kind)
    backends = [Engine("reference").load(model, kind), native.load(model, kind, threads=2)]
    vocabulary = np.sort(rng.permutation(BASE.vocab_size)[: BASE.vocab_size // 2])
    made = [backend.drafter(parts, stored) for backend in backends]
    heads = [backend.draft_head(None, vocabulary, stored, normed=plain) for backend in backends]
    assert heads[0].bytes <= heads[1].bytes < 2 * heads[0].bytes, "the same, and padding to 16 rows"
    counted = matrix_bytes(BASE, len(LAYERS), len(parts.gate), stored)
    assert plain or made[0].bytes == counted
    assert made[0].bytes <= made[1].bytes < 1.5 * made[0].bytes
    drawn, apart = 0, []
    for length in (2, 3, 17, 70):
        sequences = [
            begun(backend, tokens) for backend, tokens in zip(backends, [text(rng, length)] * 2, strict=True)
        ]

        def chains(sampling: Sampling, sequences: Sequence[SequenceState] = tuple(sequences)) -> list[Chain]:
            return [
                backend.draft_chains(drafter, [call(drafter, sequence, sampling=sampling)], head)[0]
                for backend, drafter, sequence, head in zip(backends, made, sequences, heads, strict=True)
            ]

        (ours, sure), (theirs, also_sure) = chains(GREEDY)
        assert set(theirs) <= set(vocabulary.tolist())
        until = next((i + 1 for i in range(5) if ours[i] != theirs[i]), 5)  # a near-tie is as sure
        apart += np.abs(np.log(np.array(sure[:until]) / np.array(also_sure[:until]))).tolist()
        for seed in range(4):
            (ours, _), (theirs, _) = chains(Sampling(0.8, seed=seed, repetition_penalty=1.2))
            drawn += ours[0] == theirs[0]
    assert drawn > 12, "of 16 first drafts, all but near-ties"
    # Sums in another order are the same to 1e-6, but for inputs that then round to the next of 127 steps: in
    # one of seven products of 32 inputs that changes a logit of a few units by up to some hundredths.
    assert np.median(apart) < 0.02
    assert max(apart) < 0.2


@pytest.mark.parametrize("plain", [False, True])
def test_a_column_that_caught_up_is_like_a_new_one(
    engine: Backend, plain: bool, rng: np.random.Generator
) -> None:
    drafter = engine.drafter(random_parts(BASE, LAYERS, rng, plain=plain))
    sequence = begun(engine, text(rng, 9), room=200)
    column = drafter.column(sequence.capacity, "fp32")
    for step in range(8):
        old = engine.draft_chains(drafter, [call(drafter, sequence, column)])[0]
        new = engine.draft_chains(drafter, [call(drafter, sequence)])[0]
        assert old == new
        assert (column.first, column.length) == (1, sequence.length - 1)
        # Drafts that stay, drafts that are wrong, texts that are cut and go on otherwise, long ones.
        if step % 3 == 2:
            sequence.rollback(int(rng.integers(1, sequence.length - 2)))
        go_on(engine, sequence, [*old[0][: step % 5], *text(rng, 1 if step != 4 else 80)])


def test_where_states_were_let_go_a_column_begins_anew(
    engine: Backend, drafter: FittedDrafter, rng: np.random.Generator
) -> None:
    sequence = begun(engine, text(rng, 30), positions=4, room=200)
    column = drafter.column(sequence.capacity, "fp32")
    engine.draft_chains(drafter, [call(drafter, sequence, column)])
    assert (column.first, column.length) == (26, 4)
    go_on(engine, sequence, text(rng, 3))
    engine.draft_chains(drafter, [call(drafter, sequence, column)])
    assert (column.first, column.length) == (26, 7), "nothing is missing between"
    go_on(engine, sequence, text(rng, 6))
    again = engine.draft_chains(drafter, [call(drafter, sequence, column)])
    assert (column.first, column.length) == (35, 4)
    assert again == engine.draft_chains(drafter, [call(drafter, sequence)])
    sequence.rollback(20)
    sequence.keep(LAYERS, 4)
    go_on(engine, sequence, text(rng, 2))
    engine.draft_chains(drafter, [call(drafter, sequence, column)])
    assert (column.first, column.length) == (20, 1), "a text that was cut before the column"


def test_chains_of_a_batch_are_those_of_each_alone(
    engine: Backend, drafter: FittedDrafter, rng: np.random.Generator
) -> None:
    sequences = [begun(engine, text(rng, length)) for length in (2, 40, 7)]
    calls = [
        call(drafter, sequence, length=length, sampling=sampling)
        for sequence, length, sampling in zip(
            sequences, (1, 6, 3), (GREEDY, Sampling(1.0, seed=3), GREEDY), strict=True
        )
    ]
    alone = [engine.draft_chains(drafter, [one])[0] for one in calls]
    assert engine.draft_chains(drafter, calls) == alone
    assert [len(tokens) for tokens, _ in alone] == [1, 6, 3]
    assert all(0 < confidence <= 1 for _, sure in alone for confidence in sure)
    for sequence in sequences:
        assert sequence.speculative == ()
        assert sequence.row(sequence.length - 1).done == 0


def test_a_chain_stops_after_a_draft_that_is_not_sure(
    engine: Backend, drafter: FittedDrafter, rng: np.random.Generator
) -> None:
    sequence = begun(engine, text(rng, 12))
    tokens, sure = engine.draft_chains(drafter, [call(drafter, sequence, length=8)])[0]
    least = int(np.argmin(sure))
    below = float(np.nextafter(np.float32(sure[least]), np.float32(2)))
    cut = next(i for i, confidence in enumerate(sure) if confidence < below) + 1
    again = engine.draft_chains(drafter, [call(drafter, sequence, length=8, stop_below=below)])[0]
    assert again == (tokens[:cut], sure[:cut])


def test_drafts_depend_on_what_they_should(
    engine: Backend, drafter: FittedDrafter, rng: np.random.Generator
) -> None:
    """The negative control: another state before, another token, another layer's state."""
    tokens = text(rng, 12)

    def sure(backend: Backend, made: FittedDrafter, of: Sequence[int]) -> list[float]:
        return backend.draft_chains(made, [call(made, begun(backend, of))])[0][1]

    before = sure(engine, drafter, tokens)
    for position in (0, 5, 11):
        other = list(tokens)
        other[position] = (other[position] + 1) % BASE.vocab_size
        assert sure(engine, drafter, other) != before


def test_what_cannot_be_drafted_is_refused(
    engine: Backend, drafter: FittedDrafter, rng: np.random.Generator
) -> None:
    def refused(one: ChainCall, match: str) -> None:
        with pytest.raises(RowError, match=match):
            engine.draft_chains(drafter, [one])

    sequence = begun(engine, text(rng, 9))
    refused(call(drafter, sequence, length=0), "1 or more")
    refused(call(drafter, sequence, drafter.column(10, "fp32")), "no room")
    (slot,) = sequence.branch([1])
    refused(call(drafter, sequence), "speculative")
    sequence.prune([slot])
    engine.advance([(sequence, [8])], 1)  # a newest position that waits on its way is no hindrance
    engine.draft_chains(drafter, [call(drafter, sequence)])
    engine.advance([(sequence, [8])], engine.config.num_layers)
    refused(call(drafter, sequence), "newest")
    short = engine.sequence(9)
    short.keep(LAYERS, 4)
    short.append(text(rng, 1))
    refused(call(drafter, short), "newest")
    blind = engine.sequence(20)
    go_on(engine, blind, text(rng, 5))
    refused(call(drafter, blind), "keep")
    blind.keep((1,), 4)
    go_on(engine, blind, text(rng, 2))
    refused(call(drafter, blind), "kept")
    twice = begun(engine, text(rng, 9))
    with pytest.raises(RowError, match="twice"):
        engine.draft_chains(drafter, [call(drafter, twice), call(drafter, twice)])


def test_wrong_parts_are_refused(engine: Backend, rng: np.random.Generator) -> None:
    parts = random_parts(BASE, LAYERS, rng)
    for wrong, match in (
        ({"layers": (0, 3)}, "1.."),
        ({"layers": (3, 1)}, "ascending"),
        ({"layers": (1,)}, "state_norms"),
        ({"fc": parts.fc[:, 1:]}, "fc"),
        ({"down": parts.down[:, 1:]}, "down"),
        ({"q": np.full_like(parts.q, np.nan)}, "finite"),
    ):
        with pytest.raises(ConfigurationError, match=match):
            engine.drafter(dataclasses.replace(parts, **wrong))  # type: ignore[arg-type]
    other = Engine("reference").load(random_model(dataclasses.replace(BASE), seed=6))
    sequence = begun(engine, text(rng, 5))
    made = other.drafter(parts)
    with pytest.raises(ConfigurationError, match="a ReferenceDrafter "):
        engine.draft_chains(made, [call(made, sequence)])


def test_a_column_is_of_one_drafter_and_of_one_sequence(
    engine: Backend, drafter: FittedDrafter, rng: np.random.Generator
) -> None:
    one, other = begun(engine, text(rng, 9)), begun(engine, text(rng, 9))
    column = drafter.column(one.capacity, "fp32")
    with pytest.raises(RowError, match="twice"):
        engine.draft_chains(drafter, [call(drafter, one, column), call(drafter, other, column)])
    second = engine.drafter(random_parts(BASE, LAYERS, rng))
    with pytest.raises(ConfigurationError, match="column"):
        engine.draft_chains(second, [call(second, one, column)])
    assert engine.draft_chains(drafter, [call(drafter, one, column)])[0][0], "it may be used all the same"


@pytest.mark.parametrize("capacity", [0, -1])
def test_a_column_has_room_for_something(drafter: FittedDrafter, capacity: int) -> None:
    with pytest.raises(CapacityError, match=str(capacity)):
        drafter.column(capacity, "fp32")
