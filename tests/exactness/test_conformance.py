"""One suite for every backend: each verb, each error, each result against the naive oracle."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from specee.backends.protocol import Backend, SequenceState
from specee.errors import CapacityError, ConfigurationError, RowError
from specee.sampling import penalised, sample
from specee.types import RowInfo, Sampling
from tests.engines import Engine, all_engines
from tests.exactness.draws import CONFIDENCE, PENALISED, confidence, text_of, with_branches
from tests.oracle import expected
from tests.random_model import BASE, CONFIGS, SHAPES, random_model

LAYERS = BASE.num_layers
pytestmark = pytest.mark.parametrize("engine", all_engines())


def load(engine: Engine, name: str = "", weights: str = "") -> Backend:
    """The backend with a random model; without a name, of any shape that has BASE's layers and vocabulary."""
    name, weights = name or engine.plain[0], weights or engine.plain[1]
    return engine.load(random_model(SHAPES[name], seed=1, kind=weights), weights)


def started(backend: Backend, tokens: int = 4, capacity: int = 16) -> SequenceState:
    """A poisoned sequence with ``tokens`` complete positions."""
    sequence = backend.sequence(capacity, poison=True)
    slots = sequence.append(range(1, tokens + 1))
    backend.advance([(sequence, slots)], LAYERS)
    return sequence


FLOATS = [
    (name, *kinds)
    for name in CONFIGS
    for kinds in itertools.product(["fp32", "bf16"], ["fp32", "bf16", "fp16"])
]
QUANTISED = [
    ("llama", "int8", "fp16"),
    ("llama", "int4", "fp32"),
    ("llama", "mixed", "bf16"),
    ("llama", "floats", "fp32"),
    ("llama-biases", "int4", "fp16"),
    ("mistral-window", "q4_0", "fp16"),
    ("qwen2", "int4", "fp32"),
    ("qwen3", "int8", "fp32"),
    ("odd", "int8", "fp32"),
    ("odd", "int4", "bf16"),
    ("aligned", "q4_0", "fp32"),
    ("aligned", "mixed", "fp16"),
    ("aligned", "floats", "fp16"),
    ("wide", "k-quants", "fp32"),
    ("wide", "k-quants", "fp16"),
]


@pytest.mark.parametrize(("name", "weights", "cache"), FLOATS + QUANTISED)
def test_results_match_the_oracle(engine: Engine, name: str, weights: str, cache: str) -> None:
    check_against_oracle(engine, name, weights, cache)


def check_against_oracle(engine: Engine, name: str, weights: str, cache: str) -> None:
    """Every state, key, value and logit of a text, taken through the layers one by one."""
    config = SHAPES[name]
    model = random_model(config, seed=1, kind=weights)
    backend = engine.load(model, weights)
    tokens = tuple(np.random.default_rng(2).integers(0, config.vocab_size, 20).tolist())
    wanted = expected(model, tokens, cache)
    sequence = backend.sequence(24, cache, poison=True)
    work = [(sequence, sequence.append(tokens))]
    for layer in range(config.num_layers):
        backend.advance(work, layer + 1)
        states = backend.hidden(work)
        keys, values = sequence.kv(layer, range(20))
        for position in range(20):
            wanted.check("hidden", position, states[position], layer)
            wanted.check("keys", position, keys[position], layer)
            wanted.check("values", position, values[position], layer)
    for position, logits in enumerate(backend.logits(work)):
        wanted.check("logits", position, logits)


def test_default_cache_dtype_follows_the_weights(engine: Engine) -> None:
    defaults = {"fp32": "fp32", "bf16": "bf16", "int8": "fp16", "int4": "fp16", "mixed": "fp16"}
    for weights, wanted in defaults.items():
        backend = load(engine, weights=weights)
        caches = []
        for kv_dtype in (None, wanted):
            sequence = backend.sequence(4, kv_dtype)
            backend.advance([(sequence, sequence.append([5, 6]))], 1)
            caches.append(sequence.kv(0, [0, 1])[0])
        assert np.array_equal(*caches)


def test_describes_itself(engine: Engine) -> None:
    for weights, wanted in (("fp32", "fp32"), ("int4", "int4"), ("mixed", "packed")):
        backend = load(engine, weights=weights)
        assert (backend.name, backend.config, backend.weights) == (engine.backend, BASE, wanted)


def test_rows_and_frontier_follow_a_partial_advance(engine: Engine) -> None:
    backend = load(engine)
    sequence = started(backend)
    assert (sequence.length, sequence.capacity, sequence.frontier) == (4, 16, (4, 4, 4))
    assert sequence.append([7, 8]) == range(4, 6)
    backend.advance([(sequence, [4])], 1)
    assert sequence.frontier == (5, 4, 4)
    backend.advance([(sequence, [5])], 2)
    assert sequence.frontier == (6, 6, 4)
    assert sequence.row(5) == RowInfo(slot=5, token=8, parent=4, position=5, done=2)
    assert sequence.row(0) == RowInfo(slot=0, token=1, parent=-1, position=0, done=3)
    backend.advance([(sequence, [4])], 1)
    assert sequence.row(4).done == 2


def test_branches_are_rows_on_top(engine: Engine) -> None:
    backend = load(engine)
    sequence = started(backend)
    chain = sequence.branch([10, 11])
    tree = sequence.branch([12, 13, 14], [-1, -1, 0], root=chain[0])
    assert sequence.speculative == (*chain, *tree)
    assert all(slot >= sequence.length for slot in sequence.speculative)
    assert [sequence.row(s).parent for s in (*chain, *tree)] == [3, chain[0], chain[0], chain[0], tree[0]]
    assert [sequence.row(s).position for s in (*chain, *tree)] == [4, 5, 5, 5, 6]
    backend.advance([(sequence, [tree[2]])], 2)
    assert [sequence.row(s).done for s in (*chain, *tree)] == [2, 0, 2, 0, 2]


def test_prune_takes_descendants(engine: Engine) -> None:
    sequence = started(load(engine))
    slots = sequence.branch([10, 11, 12, 13], [-1, 0, -1, 2])
    sequence.prune([slots[0]])
    assert sequence.speculative == (slots[2], slots[3])
    with pytest.raises(RowError):
        sequence.row(slots[1])


def test_commit_compacts_a_branch(engine: Engine) -> None:
    backend = load(engine)
    sequence = started(backend)
    slots = sequence.branch([10, 11, 12, 13], [-1, -1, 1, 2])
    backend.advance([(sequence, [slots[2]])], LAYERS)
    backend.advance([(sequence, [slots[3]])], 1)
    pending = backend.hidden([(sequence, [slots[3]])])
    keys, values = sequence.kv(1, [slots[1], slots[2]])
    sequence.commit(slots[1:])
    assert (sequence.length, sequence.speculative, sequence.frontier) == (7, (), (7, 6, 6))
    assert [sequence.row(s).token for s in range(4, 7)] == [11, 12, 13]
    assert np.array_equal(np.stack(sequence.kv(1, [4, 5])), np.stack([keys, values]))
    assert np.array_equal(backend.hidden([(sequence, [6])]), pending)


def test_commit_of_nothing_drops_all(engine: Engine) -> None:
    sequence = started(load(engine))
    sequence.branch([10, 11])
    sequence.commit([])
    assert (sequence.length, sequence.speculative) == (4, ())


def test_rollback_drops_positions_and_branches(engine: Engine) -> None:
    backend = load(engine)
    sequence = started(backend)
    sequence.branch([10])
    sequence.rollback(2)
    assert (sequence.length, sequence.speculative, sequence.frontier) == (2, (), (2, 2, 2))
    sequence.rollback(0)
    sequence.rollback(2)
    assert (sequence.length, sequence.frontier) == (0, (0, 0, 0))
    backend.advance([(sequence, sequence.append([1, 2]))], LAYERS)
    assert sequence.frontier == (2, 2, 2)


def test_rollback_leaves_no_trace(engine: Engine) -> None:
    backend = load(engine)
    plain, rolled = started(backend), started(backend)
    backend.advance([(rolled, rolled.append([50, 51, 52]))], 2)
    rolled.rollback(3)
    for sequence in (plain, rolled):
        backend.advance([(sequence, sequence.append([60, 61]))], LAYERS)
    assert np.array_equal(backend.logits([(plain, [5])]), backend.logits([(rolled, [5])]))


def test_hidden_of_rows_named_last(engine: Engine) -> None:
    backend = load(engine)
    sequence = started(backend)
    first = backend.hidden([(sequence, [3])])
    sequence.append([7])
    backend.advance([(sequence, [4])], LAYERS)
    assert backend.hidden([(sequence, [4])]).shape == (1, backend.config.hidden_size)
    with pytest.raises(RowError):
        backend.hidden([(sequence, [3])])
    assert first.dtype == np.float32


def test_hidden_of_pending_and_speculative_rows_stays(engine: Engine) -> None:
    backend = load(engine)
    sequence = started(backend)
    (branch,) = sequence.branch([9])
    backend.advance([(sequence, [branch])], LAYERS)
    whole = backend.hidden([(sequence, [branch])])
    (other,) = sequence.branch([8], root=3)
    backend.advance([(sequence, [other])], 1)
    assert np.array_equal(backend.hidden([(sequence, [branch])]), whole)
    sequence.commit([other])
    assert backend.hidden([(sequence, [4])]).shape == (1, backend.config.hidden_size)


def test_results_follow_the_order_of_work(engine: Engine) -> None:
    backend = load(engine)
    first, second = started(backend), started(backend, tokens=3)
    both = backend.logits([(second, [2, 0]), (first, [1])])
    alone = [backend.logits([(s, [slot])])[0] for s, slot in ((second, 2), (second, 0), (first, 1))]
    assert np.array_equal(both, np.stack(alone))
    assert backend.hidden([]).shape == (0, backend.config.hidden_size)
    assert backend.logits([(first, [])]).shape == (0, BASE.vocab_size)


@pytest.mark.parametrize("name", ["llama", "llama-tied", "odd"])
@pytest.mark.parametrize("weights", ["fp32", "bf16", "int8", "q4_0", "floats"])
def test_head_verbs_agree_with_logits(engine: Engine, name: str, weights: str) -> None:
    backend = load(engine, name, weights)
    sequence = started(backend, tokens=6)
    work = [(sequence, range(6))]
    logits = backend.logits(work)
    order = np.argsort(-logits, axis=1, kind="stable")
    assert np.array_equal(backend.argmax(work), order[:, 0])
    for k in (1, 7, backend.config.vocab_size):
        ids, values = backend.topk(work, k)
        assert np.array_equal(ids, order[:, :k])
        assert np.array_equal(values, np.take_along_axis(logits, order[:, :k], axis=1))


def test_equal_logits_give_the_lowest_id(engine: Engine) -> None:
    name, weights = engine.plain
    model = random_model(SHAPES[name], seed=4, kind=weights)
    # A one and zeros: the sum is exact in any order, which the library under the reference may vary by row.
    model.weights["head", -1][:] = np.eye(1, model.config.hidden_size, dtype=np.float32)
    backend = engine.load(model, weights)
    work = [(started(backend), [3])]
    assert backend.argmax(work).tolist() == [0]
    assert backend.topk(work, 5)[0].tolist() == [[0, 1, 2, 3, 4]]
    assert backend.sample(work, [Sampling()]).tolist() == [0]


def test_sampling_is_the_shared_function(engine: Engine) -> None:
    backend = load(engine)
    sequence = started(backend, tokens=8)
    seeds = (0, 12345, 2**63 + 17)
    grid = itertools.product(
        (0.0, 0.3, 1.0, 5.0), (0, 1, 7, 500), (0.1, 0.8, 1.0), seeds, (0.0, 0.02, 0.4, 1.0)
    )
    options = [Sampling(*combination) for combination in grid]
    logits = backend.logits([(sequence, range(8))])
    for begin in range(0, len(options), 8):
        batch = options[begin : begin + 8]
        slots = range(len(batch))
        drawn = backend.sample([(sequence, slots)], batch)
        assert drawn.dtype == np.int64
        assert drawn.tolist() == [sample(logits[p], batch[p], p + 1) for p in slots]


def test_a_penalty_looks_at_the_path_of_its_row(engine: Engine) -> None:
    backend = load(engine)
    sequence, slots = with_branches(backend)
    logits = backend.logits([(sequence, slots)])
    moved = 0
    for first in range(len(PENALISED)):
        batch = [PENALISED[(first + i) % len(PENALISED)] for i in range(len(slots))]
        drawn = backend.sample([(sequence, slots)], batch)
        for slot, row, sampling, token in zip(slots, logits, batch, drawn, strict=True):
            text, position = text_of(sequence, slot), sequence.row(slot).position + 1
            changed = penalised(row, text, sampling.repetition_penalty)
            assert token == sample(changed, sampling, position)
            moved += int(token) != sample(row, sampling, position)
    assert moved > 20, "penalties must have an effect for this to be a test"


def test_a_penalty_counts_when_greedy(engine: Engine) -> None:
    backend = load(engine)
    sequence, slots = with_branches(backend)
    work = [(sequence, slots)]
    plain = backend.argmax(work)
    children = sequence.branch(plain[:1].tolist(), root=slots[0])
    backend.advance([(sequence, children)], LAYERS)
    # The largest logits are positive: a large penalty takes the tokens of the text out of the running.
    free = backend.sample([(sequence, children)], [Sampling(repetition_penalty=1e6)])
    assert int(free[0]) not in text_of(sequence, children[0])
    bound = backend.sample([(sequence, children)], [Sampling(repetition_penalty=1e-6)])
    assert int(bound[0]) in text_of(sequence, children[0])


@pytest.mark.parametrize("name", ["llama", "llama-tied", "odd"])
@pytest.mark.parametrize("weights", ["fp32", "bf16", "int8", "floats"])
def test_drafts_are_samples_with_their_probability(engine: Engine, name: str, weights: str) -> None:
    backend = load(engine, name, weights)
    sequence, slots = with_branches(backend)
    work = [(sequence, slots)]
    logits = backend.logits(work)
    assert (logits.max(axis=1) - logits.min(axis=1)).max() < 30
    for first in range(0, len(PENALISED), 5):
        batch = [PENALISED[(first + i) % len(PENALISED)] for i in range(len(slots))]
        tokens, confidences = backend.draft(work, batch)
        assert (tokens.dtype, confidences.dtype) == (np.int64, np.float32)
        assert np.array_equal(tokens, backend.sample(work, batch))
        wanted = [confidence(row, token) for row, token in zip(logits, tokens, strict=True)]
        np.testing.assert_allclose(confidences, wanted, rtol=CONFIDENCE)
    tokens, confidences = backend.draft(work, [Sampling()] * len(slots))
    assert np.array_equal(tokens, backend.argmax(work))
    for i, slot in enumerate(slots):  # whatever rows are beside
        alone = backend.draft([(sequence, [slot])], [Sampling()])
        assert (alone[0][0], alone[1][0]) == (tokens[i], confidences[i])
    assert [array.shape for array in backend.draft([(sequence, [])], [])] == [(0,), (0,)]


def wrong_calls() -> dict[str, tuple[type[Exception], object]]:
    """Name -> (error, call on (backend, sequence)); of 8 slots 4 are complete and 2 live."""
    return {
        "row of an empty slot": (RowError, lambda b, s: s.row(7)),
        "row of a negative slot": (RowError, lambda b, s: s.row(-1)),
        "append over live rows": (RowError, lambda b, s: s.append([1])),
        "append of an unknown token": (RowError, lambda b, s: (s.prune(s.speculative), s.append([101]))),
        "append of a negative token": (RowError, lambda b, s: (s.prune(s.speculative), s.append([-1]))),
        "append over capacity": (CapacityError, lambda b, s: (s.prune(s.speculative), s.append([1] * 5))),
        "branch over capacity": (CapacityError, lambda b, s: s.branch([1, 2, 3])),
        "branch of an unknown token": (RowError, lambda b, s: s.branch([101])),
        "branch with a later parent": (RowError, lambda b, s: s.branch([1, 2], [-1, 1])),
        "branch with a wrong parent count": (RowError, lambda b, s: s.branch([1, 2], [-1])),
        "branch from an old position": (RowError, lambda b, s: s.branch([1], root=2)),
        "branch from nowhere": (RowError, lambda b, s: s.branch([1], root=7)),
        "prune of a committed row": (RowError, lambda b, s: s.prune([3])),
        "commit that skips a row": (RowError, lambda b, s: s.commit([s.speculative[1]])),
        "commit of a committed row": (RowError, lambda b, s: s.commit([3])),
        "rollback too far": (RowError, lambda b, s: s.rollback(5)),
        "rollback of less than nothing": (RowError, lambda b, s: s.rollback(-1)),
        "kv of a layer not done": (RowError, lambda b, s: s.kv(0, [s.speculative[0]])),
        "kv of no layer": (RowError, lambda b, s: s.kv(LAYERS, [0])),
        "kv of an empty slot": (RowError, lambda b, s: s.kv(0, [7])),
        "advance to no layer": (RowError, lambda b, s: b.advance([(s, [3])], 0)),
        "advance past the end": (RowError, lambda b, s: b.advance([(s, [3])], LAYERS + 1)),
        "advance of an empty slot": (RowError, lambda b, s: b.advance([(s, [7])], 1)),
        "advance of a slot twice": (RowError, lambda b, s: b.advance([(s, [3, 3])], 1)),
        "advance of a sequence twice": (RowError, lambda b, s: b.advance([(s, [3]), (s, [2])], 1)),
        "hidden before any layer": (RowError, lambda b, s: b.hidden([(s, [s.speculative[0]])])),
        "logits of an empty slot": (RowError, lambda b, s: b.logits([(s, [7])])),
        "topk of nothing": (RowError, lambda b, s: b.topk([(s, [3])], 0)),
        "topk over the vocabulary": (RowError, lambda b, s: b.topk([(s, [3])], 102)),
        "too few samplings": (RowError, lambda b, s: b.sample([(s, [3])], [])),
        "too few samplings for drafts": (RowError, lambda b, s: b.draft([(s, [3])], [])),
        "sequence over the context": (CapacityError, lambda b, s: b.sequence(BASE.max_position + 1)),
        "sequence of nothing": (CapacityError, lambda b, s: b.sequence(0)),
        "unknown kv_dtype": (ConfigurationError, lambda b, s: b.sequence(4, "fp8")),
    }


@pytest.mark.parametrize("case", wrong_calls())
def test_wrong_calls_raise_and_change_nothing(engine: Engine, case: str) -> None:
    backend = load(engine)
    sequence = started(backend, capacity=8)
    sequence.branch([10, 11])
    error, call = wrong_calls()[case]
    if "append" in case and "live" not in case:
        sequence.prune(sequence.speculative)
    before = (sequence.length, sequence.frontier, sequence.speculative)
    with pytest.raises(error) as caught:
        call(backend, sequence)
    assert len(str(caught.value)) > 10
    assert (sequence.length, sequence.frontier, sequence.speculative) == before


def test_a_foreign_sequence_is_refused(engine: Engine) -> None:
    backend, other = load(engine), load(engine)
    with pytest.raises(RowError):
        backend.advance([(started(other), [3])], 1)
