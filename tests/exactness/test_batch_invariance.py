"""Row results to the bit, whatever rows share the batch, whatever the threads, however the prompt is cut.

The yardstick is the slowest way: one row a call, one thread. Every other way must give the same bytes
(compared as integers, so that NaN and -0 count). Unused cache slots hold NaN throughout.
"""

from __future__ import annotations

import numpy as np
import pytest

from specee.backends.protocol import Backend, SequenceState
from tests.engines import Engine, native_engines
from tests.random_model import CONFIGS, SHAPES, RandomModel, random_model

LENGTH = 64
FORMATS = [
    ("llama", "fp32", "fp32"),
    ("llama", "bf16", "bf16"),
    ("odd", "fp32", "fp16"),
    ("odd", "bf16", "fp32"),
]
FORMATS += [("mistral-window", "bf16", "fp16"), ("qwen3", "fp32", "bf16"), ("llama-biases", "bf16", "bf16")]
FORMATS += [("llama", "int8", "fp16"), ("odd", "int4", "fp16"), ("aligned", "q4_0", "fp32")]
FORMATS += [("aligned", "mixed", "fp16"), ("wide", "k-quants", "fp16"), ("llama-biases", "floats", "fp16")]
Result = dict[str, np.ndarray]


def tokens_of(model: RandomModel, seed: int = 0) -> list[int]:
    """The text of the tests."""
    return np.random.default_rng(seed).integers(0, model.config.vocab_size, LENGTH).tolist()


def read(backend: Backend, sequence: SequenceState, slots: list[int]) -> Result:
    """Bits of hidden states, logits, keys and values of complete rows named in the latest advance."""
    work = [(sequence, slots)]
    kv = [np.stack(sequence.kv(layer, slots), axis=1) for layer in range(backend.config.num_layers)]
    result = {"hidden": backend.hidden(work), "logits": backend.logits(work), "kv": np.stack(kv, axis=1)}
    return {name: np.ascontiguousarray(array).view(np.uint32) for name, array in result.items()}


def one_by_one(backend: Backend, tokens: list[int], cache: str) -> Result:
    """The yardstick: append a token, take it through all layers, read it; arrays by position."""
    sequence = backend.sequence(len(tokens) + 1, cache, poison=True)
    rows = []
    for token in tokens:
        slots = list(sequence.append([token]))
        backend.advance([(sequence, slots)], backend.config.num_layers)
        rows.append(read(backend, sequence, slots))
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


def differing(wanted: Result, positions: list[int], actual: Result) -> list[str]:
    """Names of the results that differ in any bit."""
    return [name for name in wanted if not np.array_equal(wanted[name][positions], actual[name])]


class Case:
    """One model in one backend with its yardstick."""

    def __init__(self, engine: Engine, name: str, weights: str, cache: str) -> None:
        self.model = random_model(SHAPES[name], seed=11, kind=weights)
        self.engine, self.weights, self.cache = engine, weights, cache
        self.backend = engine.load(self.model, weights)
        self.layers = self.backend.config.num_layers
        self.tokens = tokens_of(self.model)
        self.wanted = one_by_one(self.backend, self.tokens, cache)

    def sequence(self, backend: Backend | None = None, capacity: int = LENGTH + 1) -> SequenceState:
        return (backend or self.backend).sequence(capacity, self.cache, poison=True)

    def assert_same(self, sequence: SequenceState, slots: list[int], backend: Backend | None = None) -> None:
        backend = backend or self.backend
        assert (
            differing(self.wanted, [sequence.row(s).position for s in slots], read(backend, sequence, slots))
            == []
        )


@pytest.fixture(scope="module", params=FORMATS, ids="-".join)
def case(request: pytest.FixtureRequest, engine: Engine) -> Case:
    return Case(engine, *request.param)


@pytest.fixture(scope="module", params=native_engines())
def engine(request: pytest.FixtureRequest) -> Engine:
    return request.param


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 48, 63, 64])
def test_number_of_rows(case: Case, rows: int) -> None:
    sequence = case.sequence()
    slots = list(sequence.append(case.tokens[:rows]))
    case.backend.advance([(sequence, slots)], case.layers)
    case.assert_same(sequence, slots)


def test_prompt_in_chunks_and_layers(case: Case) -> None:
    """Uneven chunks, each through the layers in uneven strides."""
    rng = np.random.default_rng(1)
    for _ in range(4):
        sequence, begin = case.sequence(), 0
        while begin < LENGTH:
            end = min(LENGTH, begin + int(rng.integers(1, 30)))
            slots = list(sequence.append(case.tokens[begin:end]))
            for layer in sorted(set(rng.integers(1, case.layers + 1, 2).tolist()) | {case.layers}):
                case.backend.advance([(sequence, slots)], layer)
            case.assert_same(sequence, slots)
            begin = end


def test_order_and_subset_of_rows(case: Case) -> None:
    """Named rows in any order; the rest comes along as ancestors."""
    rng = np.random.default_rng(2)
    for _ in range(6):
        sequence = case.sequence()
        sequence.append(case.tokens)
        slots = rng.permutation(LENGTH)[: rng.integers(1, LENGTH + 1)].tolist()
        case.backend.advance([(sequence, slots)], case.layers)
        case.assert_same(sequence, slots)


def test_company_of_other_sequences(case: Case) -> None:
    """Rows of strangers in the same batch, at other depths and positions."""
    rng = np.random.default_rng(3)
    mine, other, third = (case.sequence() for _ in range(3))
    other.append(tokens_of(case.model, 1)[:30])
    for begin in range(0, LENGTH, 8):
        slots = list(mine.append(case.tokens[begin : begin + 8]))
        strange = list(third.append(rng.integers(0, case.model.config.vocab_size, 3).tolist()))
        work = [(other, [int(rng.integers(0, 30))]), (mine, slots), (third, strange)]
        case.backend.advance(work, int(rng.integers(1, case.layers + 1)))
        case.backend.advance(work[::-1], case.layers)
        case.assert_same(mine, slots)


def test_accepted_branch_of_a_tree(case: Case) -> None:
    """The true text hides among wrong branches; its rows, committed or not, have plain decoding's bits."""
    rng = np.random.default_rng(4)
    sequence, vocab = case.sequence(capacity=2 * LENGTH), case.model.config.vocab_size
    case.backend.advance([(sequence, sequence.append(case.tokens[:10]))], case.layers)
    while sequence.length < LENGTH:
        right, begin = [], sequence.length
        depth = min(int(rng.integers(1, 7)), LENGTH - begin)
        for position in range(begin, begin + depth):
            sequence.branch(rng.integers(0, vocab, 2).tolist(), [-1, -1], right[-1] if right else None)
            right += sequence.branch([case.tokens[position]], root=right[-1] if right else None)
        sequence.branch(rng.integers(0, vocab, 1).tolist(), root=right[0])
        case.backend.advance([(sequence, rng.permutation(sequence.speculative).tolist())], 1)
        case.backend.advance([(sequence, sequence.speculative)], case.layers)
        case.assert_same(sequence, right)
        sequence.commit(right)
        case.assert_same(sequence, list(range(begin, begin + depth)))
    layer = case.layers - 1
    kv = np.stack(sequence.kv(layer, range(LENGTH)), axis=1).view(np.uint32)
    assert np.array_equal(kv, case.wanted["kv"][:, layer])


def test_after_rollback(case: Case) -> None:
    sequence = case.sequence()
    case.backend.advance([(sequence, sequence.append(case.tokens[:20]))], case.layers)
    case.backend.advance([(sequence, sequence.append(tokens_of(case.model, 5)[:30]))], 2)
    sequence.rollback(33)
    slots = list(sequence.append(case.tokens[17:]))
    case.backend.advance([(sequence, slots)], case.layers)
    case.assert_same(sequence, slots)


@pytest.mark.parametrize("threads", [2, 3])
def test_thread_count(case: Case, threads: int) -> None:
    backend = case.engine.load(case.model, case.weights, threads=threads)
    for rows in (1, 6, LENGTH):
        sequence = case.sequence(backend)
        for begin in range(0, LENGTH, rows):
            slots = list(sequence.append(case.tokens[begin : begin + rows]))
            backend.advance([(sequence, slots)], case.layers)
            case.assert_same(sequence, slots, backend)


@pytest.mark.parametrize("threads", [2, 3])
def test_threads_share_texts_out(case: Case, threads: int) -> None:
    """Texts of very different lengths, with one row or a few each: fewer of them than threads, and more."""
    backend = case.engine.load(case.model, case.weights, threads=threads)
    for lengths, rows in (((64, 3), 1), ((1, 64, 2), 1), ((20, 5, 40, 7, 33), 4), ((9,) * 8, 9)):
        texts = [(case.sequence(backend), length) for length in lengths]
        work = [(sequence, list(sequence.append(case.tokens[:length]))[-rows:]) for sequence, length in texts]
        backend.advance(work, case.layers)
        for sequence, slots in work:
            case.assert_same(sequence, slots, backend)


def test_head_in_a_batch(case: Case) -> None:
    """Streamed argmax and top-k of many rows at once are those of each row's logits."""
    sequence = case.sequence()
    work = [(sequence, sequence.append(case.tokens))]
    case.backend.advance(work, case.layers)
    logits = case.wanted["logits"].view(np.float32)
    ids, values = case.backend.topk(work, 5)
    assert np.array_equal(case.backend.argmax(work), logits.argmax(1))
    assert np.array_equal(ids, np.argsort(-logits, axis=1, kind="stable")[:, :5])
    assert np.array_equal(values, np.take_along_axis(logits, ids, axis=1))


class BatchDependent:
    """The negative control: a backend whose results move by one ulp when the batch is even."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def __getattr__(self, name: str) -> object:
        return getattr(self._backend, name)

    def hidden(self, work: list[tuple[SequenceState, list[int]]]) -> np.ndarray:
        exact = self._backend.hidden(work)
        return exact if len(exact) % 2 else np.nextafter(exact, np.float32(np.inf))


@pytest.mark.parametrize(("rows", "noticed"), [(4, ["hidden"]), (5, [])])
def test_a_batch_dependent_backend_is_noticed(rows: int, noticed: list[str]) -> None:
    model = random_model(CONFIGS["llama"], seed=11)
    backend = BatchDependent(Engine("reference").load(model))
    tokens = tokens_of(model)[:rows]
    wanted = one_by_one(backend, tokens, "fp32")  # type: ignore[arg-type]
    sequence = backend.sequence(rows, "fp32", poison=True)  # type: ignore[operator]
    slots = list(sequence.append(tokens))
    backend.advance([(sequence, slots)], 3)  # type: ignore[operator]
    assert differing(wanted, list(range(rows)), read(backend, sequence, slots)) == noticed  # type: ignore[arg-type]


def test_a_read_of_a_poisoned_slot_is_noticed() -> None:
    """NaN from an unused slot reaches the bits that are compared."""
    model = random_model(CONFIGS["llama"], seed=11)
    backend = Engine("reference").load(model)
    tokens = tokens_of(model)[:6]
    wanted = one_by_one(backend, tokens, "fp32")
    sequence = backend.sequence(8, "fp32", poison=True)
    slots = list(sequence.append(tokens))
    backend.advance([(sequence, slots)], 2)
    sequence.keys[2, :] = sequence.keys[0, 7]  # type: ignore[attr-defined]
    backend.advance([(sequence, slots)], 3)
    assert differing(wanted, list(range(6)), read(backend, sequence, slots)) == []
    sequence.keys[0, 2] = sequence.keys[0, 7]  # type: ignore[attr-defined]
    assert "kv" in differing(wanted, list(range(6)), read(backend, sequence, slots))
