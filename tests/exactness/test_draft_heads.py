"""Draft heads of every backend: the kept rows to the bit, the adapter against float64, drafts as samples."""

from __future__ import annotations

import gc
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from specee.backends.protocol import Backend, SequenceState
from specee.errors import ConfigurationError
from specee.models.speculator import Adapter
from specee.sampling import penalised, sample
from specee.types import Sampling
from tests import oracle
from tests.engines import Engine, all_engines, native_engines
from tests.exactness.draws import CONFIDENCE, PENALISED, confidence, text_of, with_branches
from tests.random_model import BASE, SHAPES, RandomModel, random_model

FORMATS = [
    *(("llama", weights) for weights in ("fp32", "bf16", "int8", "int4", "floats")),
    *(("llama-tied", weights) for weights in ("fp32", "bf16", "int8")),
    *(("odd", weights) for weights in ("fp32", "bf16", "int8")),
    *(("aligned", weights) for weights in ("q4_0", "mixed", "floats")),
    ("wide", "k-quants"),
]
SIZES = [1, 2, 15, 16, 17, 33, 60]
Work = list[tuple[SequenceState, list[int]]]


def vocabulary(size: int, vocab_size: int, seed: int = 0) -> np.ndarray:
    """Ids in no order."""
    return np.random.default_rng(seed).permutation(vocab_size)[:size]


def random_adapter(hidden: int, width: int, seed: int = 0, gain: float = 1.0) -> Adapter:
    rng = np.random.default_rng(seed)
    return Adapter(
        norm=rng.uniform(0.5, 1.5, hidden).astype(np.float32),
        down=rng.normal(0.0, 1.5 / np.sqrt(hidden), (width, hidden)).astype(np.float32),
        up=rng.normal(0.0, gain * 1.5 / np.sqrt(width), (hidden, width)).astype(np.float32),
    )


def rows_of(backend: Backend, count: int = 5, seed: int = 3) -> Work:
    """Rows at a layer before the last."""
    sequence = backend.sequence(count, poison=True)
    slots = sequence.append(
        np.random.default_rng(seed).integers(0, backend.config.vocab_size, count).tolist()
    )
    work = [(sequence, list(slots))]
    backend.advance(work, backend.config.num_layers - 1)
    return work


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    return np.array_equal(np.ascontiguousarray(a).view(np.uint32), np.ascontiguousarray(b).view(np.uint32))


def keeps_rows(backend: Backend, work: Work, ids: np.ndarray, kept: np.ndarray) -> bool:
    """Whether a head made for ``ids`` gives the logits that the whole head has for ``kept``."""
    whole, part = backend.logits(work), backend.logits(work, backend.draft_head(None, ids))
    outside = np.setdiff1d(np.arange(backend.config.vocab_size), ids)
    return same_bits(whole[:, kept], part[:, ids]) and bool((part[:, outside] == -np.inf).all())


@pytest.mark.parametrize(("name", "weights"), FORMATS)
@pytest.mark.parametrize("engine", all_engines())
def test_kept_tokens_have_the_bits_of_the_whole_head(engine: Engine, name: str, weights: str) -> None:
    backend = engine.load(random_model(SHAPES[name], seed=2, kind=weights), weights, threads=2)
    work = rows_of(backend)
    for size in (*SIZES, backend.config.vocab_size):
        ids = vocabulary(size, backend.config.vocab_size, seed=size)
        assert keeps_rows(backend, work, ids, ids)
        if size > 1:
            assert not keeps_rows(backend, work, ids, np.roll(ids, 1)), "rows out of order must be noticed"
    assert keeps_rows(
        backend,
        work,
        np.arange(backend.config.vocab_size, dtype=np.int32)[::-1],
        np.arange(backend.config.vocab_size)[::-1],
    )


def adapted(model: RandomModel, states: np.ndarray, adapter: Adapter, *, rounded: bool) -> np.ndarray:
    """Logits of states that pass an adapter first, in the dtype of ``states``."""
    kind, dtype, eps = "bf16" if rounded else "none", states.dtype, model.config.norm_eps
    norm, down, up = (part.astype(dtype) for part in (adapter.norm, adapter.down, adapter.up))
    inner = oracle.round_to(oracle._norm(states, norm, eps), kind) @ oracle.round_to(down, "bf16").T
    active = oracle.round_to(inner / (1 + np.exp(-inner)), kind)
    x = states + active @ oracle.round_to(up, "bf16").T
    normed = oracle._norm(x, model.weights["final_norm", -1].astype(dtype), eps)
    key = ("embed" if model.config.tied_head else "head", -1)
    return oracle.product(model, key, normed, rounded=rounded)


def allowed(model: RandomModel, states: np.ndarray, adapter: Adapter) -> float:
    """The tolerance of tests.oracle: other orders of summation, and roundings that fall differently."""
    wide = states.astype(np.float64)
    exact, plain = (adapted(model, wide, adapter, rounded=rounded) for rounded in (True, False))
    single = adapted(model, states, adapter, rounded=False)
    tight = 16 * np.abs(single - plain).max() + 4 * np.finfo(np.float32).eps * np.abs(exact).max()
    return float(tight + 4 * np.abs(exact - plain).max())


@pytest.mark.parametrize(("name", "weights"), FORMATS)
@pytest.mark.parametrize("engine", all_engines())
def test_an_adapter_is_a_residual_bottleneck(engine: Engine, name: str, weights: str) -> None:
    model = random_model(SHAPES[name], seed=2, kind=weights)
    backend = engine.load(model, weights, threads=3)
    for width, rows in ((1, 1), (5, 2), (16, 9), (23, 4), (48, 70)):
        work = rows_of(backend, rows)
        states = backend.hidden(work)
        adapter = random_adapter(model.config.hidden_size, width, seed=width)
        head = backend.draft_head(adapter, None)
        got = backend.logits(work, head)
        wanted = adapted(model, states.astype(np.float64), adapter, rounded=True)
        tolerance = allowed(model, states, adapter)
        assert np.abs(got - wanted).max() <= tolerance
        assert np.abs(backend.logits(work) - wanted).max() > tolerance, "an adapter that does nothing"
        if weights == "fp32":  # the others' tolerance is one of their roundings, which hides a detail
            swapped = Adapter(adapter.norm[::-1].copy(), adapter.down, adapter.up)
            other = adapted(model, states.astype(np.float64), swapped, rounded=True)
            assert np.abs(got - other).max() > tolerance, "the norm must matter"


@pytest.mark.parametrize(("name", "weights"), [("llama", "fp32"), ("llama", "bf16"), ("llama", "int8")])
@pytest.mark.parametrize("engine", all_engines())
def test_a_normed_head_takes_states_as_they_are(engine: Engine, name: str, weights: str) -> None:
    model = random_model(SHAPES[name], seed=2, kind=weights)
    backend = engine.load(model, weights, threads=2)
    work, key = rows_of(backend), ("embed" if model.config.tied_head else "head", -1)
    states = backend.hidden(work)
    got = backend.logits(work, backend.draft_head(None, None, normed=True))
    wide = states.astype(np.float64)
    exact, plain = (oracle.product(model, key, wide, rounded=rounded) for rounded in (True, False))
    single = oracle.product(model, key, states, rounded=False)
    tight = 16 * np.abs(single - plain).max() + 4 * np.finfo(np.float32).eps * np.abs(exact).max()
    tolerance = tight + 4 * np.abs(exact - plain).max()
    assert np.abs(got - exact).max() <= tolerance
    assert np.abs(backend.logits(work) - exact).max() > tolerance, "the final norm must matter"


@pytest.mark.parametrize("engine", all_engines())
def test_an_adapter_of_zeros_changes_nothing(engine: Engine) -> None:
    for weights in ("fp32", "bf16", "int8"):
        backend = engine.load(random_model(BASE, seed=2, kind=weights), weights)
        work = rows_of(backend)
        adapter = random_adapter(BASE.hidden_size, 7, gain=0.0)
        assert np.array_equal(backend.logits(work, backend.draft_head(adapter, None)), backend.logits(work))


@pytest.mark.parametrize("engine", native_engines())
def test_adapted_logits_do_not_depend_on_rows_or_threads(engine: Engine) -> None:
    for weights in ("fp32", "bf16", "int8"):
        model = random_model(SHAPES["odd"], seed=2, kind=weights)
        adapter, ids = random_adapter(model.config.hidden_size, 19), vocabulary(29, model.config.vocab_size)
        wanted = None
        for threads in (1, 2, 3):
            backend = engine.load(model, weights, threads=threads)
            head = backend.draft_head(adapter, ids)
            ((sequence, slots),) = rows_of(backend, 70)
            alone = np.concatenate([backend.logits([(sequence, [slot])], head) for slot in slots])
            wanted = alone if wanted is None else wanted
            assert same_bits(alone, wanted)
            for rows in (2, 8, 9, 64, 70):
                assert same_bits(backend.logits([(sequence, slots[:rows])], head), wanted[:rows])
            tokens, confidences = backend.draft([(sequence, slots)], [Sampling()] * 70, head)
            for slot in slots[::7]:
                token, share = backend.draft([(sequence, [slot])], [Sampling()], head)
                assert (token[0], share[0]) == (tokens[slot], confidences[slot])


@pytest.mark.parametrize("engine", all_engines())
@pytest.mark.parametrize("weights", ["fp32", "bf16", "int8"])
def test_drafts_of_a_head_are_samples_of_what_it_keeps(engine: Engine, weights: str) -> None:
    backend = engine.load(random_model(BASE, seed=1, kind=weights), weights, threads=2)
    sequence, slots = with_branches(backend)
    work = [(sequence, slots)]
    outside = 0
    for size, adapter in ((1, None), (9, random_adapter(BASE.hidden_size, 6)), (50, None)):
        ids = vocabulary(size, BASE.vocab_size, seed=size)
        head = backend.draft_head(adapter, ids)
        logits = backend.logits(work, head)
        for first in range(0, len(PENALISED), 5):
            batch = [PENALISED[(first + i) % len(PENALISED)] for i in range(len(slots))]
            tokens, confidences = backend.draft(work, batch, head)
            assert set(tokens.tolist()) <= set(ids.tolist())
            for slot, row, sampling, token, share in zip(
                slots, logits, batch, tokens, confidences, strict=True
            ):
                # Minus infinity keeps out of every filter and every draw.
                changed = penalised(row, text_of(sequence, slot), sampling.repetition_penalty)
                assert token == sample(changed, sampling, sequence.row(slot).position + 1)
                np.testing.assert_allclose(share, confidence(row, token), rtol=CONFIDENCE)
            outside += sum(token not in ids for token in backend.sample(work, batch))
    assert outside > 0, "the heads must leave out what would have been drawn"


@pytest.mark.parametrize("engine", native_engines())
def test_a_large_vocabulary_comes_in_pieces(engine: Engine) -> None:
    """Whatever rows are beside, and so however many logits are made at a time; several threads."""
    config = replace(BASE, vocab_size=9_001)
    for weights in ("fp32", "bf16"):
        backend = engine.load(random_model(config, seed=1, kind=weights), weights, threads=2)
        ((sequence, slots),) = rows_of(backend, 20)
        for head in (backend.draft_head(None, None), backend.draft_head(None, vocabulary(7_003, 9_001))):
            logits = backend.logits([(sequence, slots)], head)
            tokens, confidences = backend.draft([(sequence, slots)], [Sampling()] * 20, head)
            assert np.array_equal(tokens, logits.argmax(axis=1))
            wanted = [confidence(row, token) for row, token in zip(logits, tokens, strict=True)]
            np.testing.assert_allclose(confidences, wanted, rtol=CONFIDENCE)
            for rows in (1, 2, 3, 5, 8, 16):
                part = backend.draft([(sequence, slots[:rows])], [Sampling()] * rows, head)
                assert np.array_equal(part[0], tokens[:rows])
                assert same_bits(part[1], confidences[:rows])
                assert same_bits(backend.logits([(sequence, slots[:rows])], head), logits[:rows])


@pytest.mark.parametrize("engine", all_engines())
def test_equal_logits_give_the_lowest_id_of_those_kept(engine: Engine) -> None:
    model = random_model(BASE, seed=4)
    model.weights["head", -1][:] = np.eye(1, BASE.hidden_size, dtype=np.float32)
    backend = engine.load(model)
    work = rows_of(backend, 1)
    head = backend.draft_head(None, np.array([77, 40, 90, 41]))
    token, share = backend.draft(work, [Sampling()], head)
    assert (token.tolist(), share.tolist()) == ([40], [0.25])


@pytest.mark.parametrize("engine", all_engines())
def test_bytes_are_those_of_one_use(engine: Engine) -> None:
    for weights, row in (("fp32", 4 * BASE.hidden_size), ("bf16", 2 * BASE.hidden_size)):
        backend = engine.load(random_model(BASE, seed=1, kind=weights), weights)
        adapter = random_adapter(BASE.hidden_size, 16)
        parts = 4 * BASE.hidden_size + 2 * 2 * 16 * BASE.hidden_size
        whole, kept = backend.draft_head(None, None).bytes, backend.draft_head(None, np.arange(32)).bytes
        assert (backend.draft_head(adapter, np.arange(32)).bytes, kept) == (kept + parts, 32 * row)
        assert BASE.vocab_size * row <= whole < (BASE.vocab_size + 16) * row  # blocks of 16 are whole


def wrong_parts() -> dict[str, tuple[Adapter | None, object, str]]:
    """Name -> (adapter, vocabulary, what the message must name)."""
    right = random_adapter(BASE.hidden_size, 8)
    return {
        "id past the vocabulary": (None, np.array([3, 101]), "101"),
        "negative id": (None, np.array([3, -1]), "-1"),
        "id given twice": (None, np.array([3, 9, 3]), "id 3 "),
        "no ids": (None, np.array([], np.int64), "one or more"),
        "ids in two dimensions": (None, np.array([[3, 9]]), "(1, 2)"),
        "ids that are no integers": (None, np.array([1.0, 2.0]), "float64"),
        "norm too long": (Adapter(np.ones(33, np.float32), right.down, right.up), None, "norm"),
        "down for another model": (Adapter(right.norm, right.down[:, 1:], right.up), None, "down"),
        "up the wrong way round": (Adapter(right.norm, right.down, right.down), None, "up"),
        "up of another width": (Adapter(right.norm, right.down, right.up[:, 1:]), None, "up"),
        "no width": (Adapter(right.norm, right.down[:0], right.up[:, :0]), None, "down"),
    }


@pytest.mark.parametrize("case", wrong_parts())
@pytest.mark.parametrize("engine", all_engines())
def test_wrong_parts_are_refused(engine: Engine, case: str) -> None:
    adapter, ids, named = wrong_parts()[case]
    backend = engine.load(random_model(BASE, seed=1))
    with pytest.raises(ConfigurationError) as caught:
        backend.draft_head(adapter, ids)
    assert named in str(caught.value)


class Stranger:
    """A draft head of nobody."""

    bytes = 0


@pytest.mark.parametrize("engine", all_engines())
def test_heads_of_others_are_refused(engine: Engine) -> None:
    backend, other = (engine.load(random_model(SHAPES[name], seed=1)) for name in ("llama", "odd"))
    work = rows_of(backend)
    for head in (Stranger(), other.draft_head(None, np.arange(5))):
        with pytest.raises(ConfigurationError, match=r"draft_head\(\)"):
            backend.draft(work, [Sampling()] * 5, head)
        with pytest.raises(ConfigurationError, match=r"draft_head\(\)"):
            backend.logits(work, head)


@pytest.mark.parametrize("engine", native_engines())
def test_a_head_outlives_its_backend(engine: Engine) -> None:
    backend = engine.load(random_model(BASE, seed=1))
    head = backend.draft_head(random_adapter(BASE.hidden_size, 8), None)
    size = head.bytes
    del backend
    gc.collect()
    assert head.bytes == size > 0


@pytest.mark.parametrize("engine", native_engines())
def test_heads_in_several_threads(engine: Engine) -> None:
    """Heads are made and used while others are in use; each result is that of a call alone."""
    backend = engine.load(random_model(BASE, seed=1), threads=2)
    works = [rows_of(backend, 3, seed) for seed in range(4)]
    adapters = [random_adapter(BASE.hidden_size, 8 * (1 + seed), seed) for seed in range(4)]
    ids = [vocabulary(20 + seed, BASE.vocab_size, seed) for seed in range(4)]
    wanted = [
        backend.logits(work, backend.draft_head(*parts))
        for work, parts in zip(works, zip(adapters, ids, strict=True), strict=True)
    ]

    def use(index: int) -> bool:
        for _ in range(20):
            head = backend.draft_head(adapters[index], ids[index])
            if not same_bits(backend.logits(works[index], head), wanted[index]):
                return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(use, range(4)))
