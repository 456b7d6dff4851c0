"""What a drafter block's rows are told in a round (csrc/cuda/block_round.cuh), for random plans."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from specee.cuda.acceptance import Draws
from specee.cuda.block_record import BLOCK_PLAN, UnseenText, encode_blocks
from specee.cuda.block_round import BlockState, draws_of, newest_rows, text_rows
from specee.cuda.round import NO_DRAFT, ChainRows
from specee.cuda.spread import spread_logits
from specee.errors import ConfigurationError
from tests.cuda.devices import Device
from tests.graph import toy_model

SIZES = [(1, 1), (3, 5), (3, 18), (64, 1)]  # sequences, rows of each


def ints(device: Device, count: int) -> Any:
    return device.put(np.full(count, -7, np.int32))


def random_texts(rng: np.random.Generator, sequences: int, each: int) -> list[UnseenText]:
    return [
        UnseenText(rng.integers(0, 1000, rng.integers(1, each + 1)).tolist(), int(rng.integers(10**6)))
        for _ in range(sequences)
    ]


def state_of(device: Device, texts: list[UnseenText]) -> BlockState:
    """With garbage behind the record's sequences."""
    plan = np.full(BLOCK_PLAN.itemsize, 255, np.uint8)
    record = np.frombuffer(encode_blocks(texts), np.uint8)
    plan[: len(record)] = record
    return BlockState(device.put(plan), ints(device, 1))


@pytest.mark.parametrize(("sequences", "each"), SIZES)
def test_rows_of_text(device: Device, rng: np.random.Generator, sequences: int, each: int) -> None:
    texts = random_texts(rng, sequences, each)
    state = state_of(device, texts)
    tokens, places, slots = (ints(device, sequences * each) for _ in range(3))
    text_rows(device.launcher, state, tokens, places, slots, each)
    rows = [(text, min(at, len(text.tokens) - 1)) for text in texts for at in range(each)]
    assert device.get(tokens).tolist() == [text.tokens[at] for text, at in rows]
    assert device.get(places).tolist() == [text.place + at for text, at in rows]
    newest = [at == len(text.tokens) - 1 for text, at in rows]
    stored = [-1 if last else text.place + at for (text, at), last in zip(rows, newest, strict=True)]
    assert device.get(slots).tolist() == stored
    assert device.get(state.remembers).tolist() == [int(not all(newest))]


@pytest.mark.parametrize(("sequences", "each"), SIZES)
def test_newest_rows(device: Device, rng: np.random.Generator, sequences: int, each: int) -> None:
    texts = random_texts(rng, sequences, each)
    state, whole = state_of(device, texts), toy_model.state(1, sequences, each, device.put)
    tokens = rng.integers(0, 1000, sequences * each).astype(np.int32)
    tokens[rng.random(len(tokens)) < 0.1] = NO_DRAFT
    drafted = rng.integers(0, each, sequences)
    newest = (np.arange(sequences) * each + drafted).astype(np.int32)
    whole.tokens[...], whole.newest[...] = device.put(tokens), device.put(newest)
    out = ChainRows(*(ints(device, sequences) for _ in range(5)))
    newest_rows(device.launcher, state, whole, out)
    places = [text.place + len(text.tokens) - 1 + more for text, more in zip(texts, drafted, strict=True)]
    assert device.get(out.tokens).tolist() == np.maximum(tokens[newest], 0).tolist()
    assert device.get(out.positions).tolist() == device.get(out.slots).tolist() == places
    assert device.get(out.lengths).tolist() == device.get(out.ends).tolist() == [at + 1 for at in places]


def test_how_some_rows_are_drawn(device: Device, rng: np.random.Generator) -> None:
    numbers = (rng.random(300), rng.integers(0, 2**63, 300).astype(np.uint64), rng.integers(0, 10**6, 300))
    which = rng.integers(0, 300, 290).astype(np.int32)
    out = Draws(*(device.put(np.full(290, 7, one.dtype)) for one in numbers))
    draws_of(device.launcher, device.put(which), Draws(*(device.put(one) for one in numbers)), out)
    for found, one in zip((out.temperatures, out.seeds, out.positions), numbers, strict=True):
        assert np.array_equal(device.get(found), one[which])


def test_logits_among_those_of_all(device: Device, rng: np.random.Generator) -> None:
    vocab = 700
    ids = np.sort(rng.permutation(vocab)[:300])
    kept = rng.standard_normal((3, 300)).astype(np.float32)
    places = np.full(vocab, -1, np.int32)
    places[ids] = np.arange(300)
    out = device.put(np.full((3, vocab), np.nan, np.float32))
    spread_logits(device.launcher, device.put(kept), device.put(places), out)
    wanted = np.full((3, vocab), -np.inf, np.float32)
    wanted[:, ids] = kept
    assert np.array_equal(device.get(out), wanted)


def test_what_does_not_fit_is_refused(device: Device) -> None:
    for tokens in ([], [1] * 19):
        with pytest.raises(ConfigurationError, match=f"{len(tokens)} tokens.*allowed are 1..18"):
            encode_blocks([UnseenText(tokens, 3)])
    with pytest.raises(ConfigurationError, match=r"0 sequences in a round: allowed are 1..64"):
        encode_blocks([])
    state = state_of(device, [UnseenText([1], 3)])
    with pytest.raises(ConfigurationError, match="places is int32 of shape"):
        text_rows(device.launcher, state, *(ints(device, rows) for rows in (4, 3, 4)), 4)
    whole = toy_model.state(1, 2, 1, device.put)
    with pytest.raises(ConfigurationError, match=r"out\.tokens is int32 of shape"):
        newest_rows(device.launcher, state, whole, ChainRows(*(ints(device, 3) for _ in range(5))))
