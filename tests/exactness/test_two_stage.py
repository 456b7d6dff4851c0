"""The likeliest token by a coarse copy of the head and some of the head: that which all of it gives."""

from __future__ import annotations

import dataclasses
import random
from typing import cast

import numpy as np
import pytest

from specee.backends.cpu import CpuBackend
from tests import quantised
from tests.engines import Engine, native_engines
from tests.random_model import BASE, RandomModel, random_model, round_bf16

VOCAB, ROWS = 900, 4
SHAPES = {"fp32": 40, "bf16": 96, "int8": 576}  # inner sizes at which a coarse copy is clearly smaller
pytestmark = pytest.mark.parametrize("engine", native_engines())


@pytest.fixture
def rng() -> np.random.Generator:
    seed = random.randrange(2**32)
    print("seed", seed)
    return np.random.default_rng(seed)


def plain_model(kind: str, rng: np.random.Generator) -> RandomModel:
    """One layer, and a head of its own."""
    config = dataclasses.replace(
        BASE, hidden_size=SHAPES[kind], vocab_size=VOCAB, num_layers=1, windows=(0,), tied_head=False
    )
    return random_model(config, int(rng.integers(2**31)), kind)


def with_head(model: RandomModel, kind: str, head: np.ndarray) -> RandomModel:
    """The same with that head, as ``kind`` stores it."""
    weights, blocks, key = dict(model.weights), dict(model.blocks), ("head", -1)
    head = np.ascontiguousarray(head, np.float32)
    if kind == "int8":
        blocks[key] = quantised.from_floats(head, "Q8_0")
        head = quantised.to_floats(blocks[key], "Q8_0", head.shape[1])
    weights[key] = round_bf16(head) if kind == "bf16" else head
    return dataclasses.replace(model, weights=weights, blocks=blocks)


def states(engine: Engine, model: RandomModel, kind: str, tokens: list[int]) -> np.ndarray:
    """What the head multiplies behind each token, but for its rounding."""
    backend = engine.load(model, kind)
    sequence = backend.sequence(len(tokens))
    sequence.append(tokens)
    work = [(sequence, range(len(tokens)))]
    backend.advance(work, 1)
    hidden = np.asarray(backend.hidden(work), np.float64)
    scale = np.sqrt((hidden**2).mean(axis=1, keepdims=True) + model.config.norm_eps)
    return hidden / scale * model.weights["final_norm", -1]


def check(engine: Engine, model: RandomModel, kind: str, tokens: list[int], *, threads: int) -> np.ndarray:
    """All rows, a few at a time; the tokens. Every call has to be answered in two stages."""
    backend = cast("CpuBackend", engine.load(model, kind, threads=threads))
    native = backend._engine
    native.use_two_stages(True)
    sequence = backend.sequence(len(tokens))
    sequence.append(tokens)
    backend.advance([(sequence, range(len(tokens)))], 1)
    found, whole = [], []
    for begin in range(0, len(tokens), ROWS):
        work = [(sequence, range(begin, min(begin + ROWS, len(tokens))))]
        native.use_two_stages(True)  # or they would rest where they save nothing
        before = native.two_stages[0]
        found += list(backend.argmax(work))
        assert native.two_stages[0] == before + 1, "not by the whole head"
        whole += list(np.argmax(backend.logits(work), axis=1))  # the first of equals
    assert found == whole
    native.use_two_stages(False)
    assert list(backend.argmax([(sequence, range(min(ROWS, len(tokens))))])) == found[:ROWS]
    assert native.two_stages[0] == -(-len(tokens) // ROWS)
    return np.array(found)


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("threads", [1, 3])
def test_any_head(engine: Engine, kind: str, threads: int, rng: np.random.Generator) -> None:
    model = plain_model(kind, rng)
    shape = model.weights["head", -1].shape
    some = rng.normal(0, 1, shape)
    spread = 2.0 ** rng.uniform(-12, 12, shape[1])
    nearly = np.repeat(some[:30], 30, axis=0)
    nearly = nearly * (1 + rng.integers(-1, 2, shape) * 2.0**-8 * (rng.random(shape) < 0.05))
    heads = {
        "random": some,
        "twins": np.repeat(some[:9], 100, axis=0)[rng.permutation(VOCAB)],
        "nearly twins": nearly,
        "outliers": some * spread,
        "one input": some * (np.arange(shape[1]) == 7),
        "nothing": some * 0,
        "nothing but one": some * (np.arange(VOCAB) == VOCAB - 1)[:, None],
        "large": some * 1e4,
        "small": some * 1e-6,
    }
    for name, head in heads.items():
        print(name)
        tokens = [int(token) for token in rng.integers(0, VOCAB, 3 * ROWS - 1)]
        check(engine, with_head(model, kind, head), kind, tokens, threads=threads)


@pytest.mark.parametrize("kind", SHAPES)
def test_of_a_sure_model_little_of_the_head_is_read(
    engine: Engine, kind: str, rng: np.random.Generator
) -> None:
    model = plain_model(kind, rng)
    # None twice: of two in the beginning, both would have the same state, and so the same best token.
    tokens = [int(token) for token in rng.permutation(VOCAB)[:40]]
    x = states(engine, model, kind, tokens)
    head = rng.normal(0, 1, (VOCAB, x.shape[1])) / np.sqrt(x.shape[1])
    wanted = rng.permutation(VOCAB)[: len(tokens)]
    head[wanted] = 4 * x / np.linalg.norm(x, axis=1, keepdims=True)
    model = with_head(model, kind, head)
    assert list(check(engine, model, kind, tokens, threads=2)) == list(wanted)
    backend = cast("CpuBackend", engine.load(model, kind, threads=2))
    backend._engine.use_two_stages(True)
    sequence = backend.sequence(len(tokens))
    sequence.append(tokens)
    backend.advance([(sequence, range(len(tokens)))], 1)
    for row in range(len(tokens)):
        backend.argmax([(sequence, [row])])
    calls, reread = backend._engine.two_stages
    assert calls == len(tokens)
    assert 0 < reread / calls < 0.2, "of a random head it is nearly all"
    k = x.shape[1]
    units, outliers = -(-k // 32), -(-min(k, -(-(k // 6) // 32) * 32) // 32)
    assert backend.bytes_by_step["head"] == -(-VOCAB // 16) * 16 * (20 * (units + outliers) + 14)


def test_unlikely_tokens_are_likelier_than_none(engine: Engine, rng: np.random.Generator) -> None:
    """The last block has places without a token, and all logits are far below nothing."""
    model = plain_model("bf16", rng)
    assert VOCAB % 16
    tokens = [int(token) for token in rng.integers(0, VOCAB, 20)]
    x = states(engine, model, "bf16", tokens)
    head = -np.sign(x.mean(axis=0)) * rng.uniform(4, 5, (VOCAB, 1)) + rng.normal(0, 0.01, (VOCAB, x.shape[1]))
    head[5] = -np.sign(x.mean(axis=0))
    model.weights["final_norm", -1][:] = np.abs(model.weights["final_norm", -1])
    model = with_head(model, "bf16", head)
    backend = cast("CpuBackend", engine.load(model, "bf16", threads=2))
    native = backend._engine
    native.use_two_stages(True)
    sequence = backend.sequence(len(tokens))
    sequence.append(tokens)
    backend.advance([(sequence, range(len(tokens)))], 1)
    best = [row for row in range(len(tokens)) if backend.logits([(sequence, [row])]).max() < 0]
    assert best, "else nothing is shown"
    shares = []
    for row in best:
        before = native.two_stages
        [token] = backend.argmax([(sequence, [row])])
        assert token == np.argmax(backend.logits([(sequence, [row])]))
        assert native.two_stages[0] == before[0] + 1
        shares.append(native.two_stages[1] - before[1])
    assert sorted(shares)[len(shares) // 2] < 0.9, "the block at the end is not the likeliest"


def test_what_is_too_large_or_small_is_right(engine: Engine, rng: np.random.Generator) -> None:
    """Whoever answers: near the ends of the range it is the whole head."""
    model = plain_model("fp32", rng)
    head = rng.normal(0, 1, model.weights["head", -1].shape)
    tokens = [int(token) for token in rng.integers(0, VOCAB, ROWS + 1)]
    for scale in (1e-45, 1e-38, 1e-30, 1e-25, 1e-12, 1e12, 1e25, 1e34):
        backend = cast("CpuBackend", engine.load(with_head(model, "fp32", head * scale), "fp32"))
        backend._engine.use_two_stages(True)
        sequence = backend.sequence(len(tokens))
        sequence.append(tokens)
        backend.advance([(sequence, range(len(tokens)))], 1)
        for rows in (range(1), range(ROWS), range(ROWS + 1)):  # the last are more than two stages take
            expected = np.argmax(backend.logits([(sequence, rows)]), axis=1)
            assert list(backend.argmax([(sequence, rows)])) == list(expected), scale


def test_a_copy_is_made_when_there_have_been_some_tokens(engine: Engine, rng: np.random.Generator) -> None:
    model = plain_model("fp32", rng)
    backend = cast("CpuBackend", engine.load(model, "fp32"))
    native = backend._engine
    sequence = backend.sequence(1)
    sequence.append([7])
    work = [(sequence, [0])]
    backend.advance(work, 1)
    whole, [token] = native.step_bytes, backend.argmax(work)
    calls = 1
    while native.two_stages[0] == 0:
        assert list(backend.argmax(work)) == [token]
        calls += 1
        assert calls < 1000
    assert calls > 30, "short texts go without"
    assert native.step_bytes < whole < native.weight_bytes


@pytest.mark.parametrize("kind", ["fp32", "bf16"])
def test_errors_that_all_point_the_same_way(
    engine: Engine, kind: str, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By coarse logits another token is likelier by far: nearly as far as bounds allow."""
    monkeypatch.setitem(SHAPES, "fp32", 192)  # so that most inputs are no outliers
    model = plain_model(kind, rng)
    model.weights["final_norm", -1][:] = 1  # no input matters more than another by this
    for _ in range(5):
        token = int(rng.integers(VOCAB))
        x = states(engine, model, kind, [token])[0]
        k = len(x)
        q = np.where(x > 0, rng.integers(7, 12, k), rng.integers(3, 8, k)).astype(np.float64)
        q[::32], q[1::32] = 0, 15  # each block of 32 spans its grid, whose steps are 1
        inner = ~np.isin(np.arange(k) % 32, (0, 1))
        right, likely = q.copy(), q.copy()
        right[inner] += 0.4375 * np.sign(x[inner])
        gap = float(np.abs(x[inner]).sum()) * 0.4375
        for i in np.flatnonzero(inner & (np.abs(x) > 0.01)):  # steps of the grid, up to most of the gap
            step = np.sign(x[i])
            if 1 <= likely[i] + step <= 14 and (likely - q) @ x + abs(x[i]) < 0.8 * gap:
                likely[i] += step
        assert (right - q) @ x > (likely - q) @ x > 0.5 * gap
        head = np.tile(-30 * np.sign(x), (VOCAB, 1))  # unlikely
        places = rng.choice(VOCAB // 16, 2, replace=False) * 16 + rng.integers(0, 16, 2)
        head[places[0]], head[places[1]] = right, likely
        found = check(engine, with_head(model, kind, head), kind, [token], threads=2)
        assert found[0] == places[0]
