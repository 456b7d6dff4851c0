"""Early exits of every backend: candidates, merged scores, predictors, and rows that wait and catch up."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from specee.backends.protocol import (
    Backend,
    DraftHead,
    ExitCall,
    FittedColumn,
    FittedDrafter,
    FittedExits,
    RankCall,
    SequenceState,
)
from specee.errors import ConfigurationError, RowError
from specee.models.exit_parts import ExitParts
from specee.types import Sampling
from tests.engines import Engine, all_engines
from tests.random_drafter import random_parts
from tests.random_exits import random_exits
from tests.random_model import SHAPES, random_model

pytestmark = pytest.mark.parametrize("engine", all_engines())
KINDS = [
    ("odd", "fp32"),
    ("llama-biases", "bf16"),
    ("aligned", "mixed"),
    ("wide", "k-quants"),
]
CANDIDATES = 16
TEXT = 9  # positions of a text, the newest of which waits


@dataclass
class Fitted:
    """A backend with a random block and random predictors."""

    backend: Backend
    parts: ExitParts
    drafter: FittedDrafter
    exits: FittedExits

    def sequence(self, tokens: list[int], capacity: int = 32, complete: int | None = None) -> SequenceState:
        """With all positions complete but the newest, or the first so many; poisoned, all layers kept."""
        state = self.backend.sequence(capacity, poison=True)
        state.keep(range(1, self.backend.config.num_layers + 1), capacity)
        slots = state.append(tokens)
        done = len(tokens) - 1 if complete is None else complete
        self.backend.advance([(state, slots[:done])], self.backend.config.num_layers)
        return state

    def column(self, capacity: int = 32) -> FittedColumn:
        return self.drafter.column(capacity, "fp16")


def fitted(engine: Engine, name: str | None = None, kind: str | None = None, seed: int = 5) -> Fitted:
    any_name, any_kind = engine.plain
    name, kind = name or any_name, kind or any_kind
    backend = engine.load(random_model(SHAPES[name], seed=1, kind=kind), kind)
    rng = np.random.default_rng(seed)
    config = backend.config
    parts = random_exits(config, rng, candidates=CANDIDATES)
    drafter = backend.drafter(random_parts(config, (1, config.num_layers), rng))
    return Fitted(backend, parts, drafter, backend.exit_predictors(parts))


def likely(made: Fitted, texts: list[list[int]]) -> DraftHead:
    """A draft vocabulary of tokens that layers give after these texts, so that candidates are often right."""
    found: dict[int, None] = {}
    for text in texts:
        state = made.sequence(text)
        for layer in range(1, made.backend.config.num_layers + 1):
            made.backend.advance([(state, [len(text) - 1])], layer)
            found[int(made.backend.argmax([(state, [len(text) - 1])])[0])] = None
    spare = [token for token in range(made.backend.config.vocab_size) if token not in found]
    return made.backend.draft_head(None, np.array([*found, *spare][:CANDIDATES]))


def some_text(backend: Backend, seed: int, length: int = TEXT) -> list[int]:
    return np.random.default_rng(seed).integers(0, backend.config.vocab_size, length).tolist()


@pytest.mark.parametrize(("name", "kind"), KINDS)
def test_a_score_is_the_logit_of_the_whole_head(engine: Engine, name: str, kind: str) -> None:
    made = fitted(engine, name, kind)
    backend, config = made.backend, made.backend.config
    rng = np.random.default_rng()
    print("state", rng.bit_generator.state["state"]["state"])
    state = made.sequence(some_text(backend, 1))
    layers = list(range(1, config.num_layers + 1))
    for count in (1, 4, 16):
        slots = rng.permutation(TEXT - 1)[:5].tolist()
        wanted = np.array([rng.permutation(config.vocab_size)[:count] for _ in slots])
        scores = backend.score([(state, slots)], layers, wanted)
        assert scores.shape == (len(slots), len(layers), count)
        text = some_text(backend, 1)
        fresh = backend.sequence(32)
        every = fresh.append(text)
        for index, layer in enumerate(layers):
            backend.advance([(fresh, every)], layer)
            logits = backend.logits([(fresh, slots)])
            assert np.array_equal(scores[:, index], np.take_along_axis(logits, wanted, 1))


def test_equal_scores_are_equal(engine: Engine) -> None:
    """Two ids of one head row (a tie) have one score, in whatever order."""
    made = fitted(engine)
    state = made.sequence(some_text(made.backend, 2))
    one = made.backend.score([(state, [3])], [1], np.array([[7, 2, 9]]))
    other = made.backend.score([(state, [3])], [1], np.array([[9, 7, 2]]))
    assert one[0, 0].tolist() == other[0, 0, [1, 2, 0]].tolist()


@pytest.mark.parametrize(
    ("candidates", "error"),
    [
        (np.zeros((1, 0), np.int64), "candidates"),
        (np.arange(17)[None], "candidates"),
        (np.array([[3, 3]]), "twice"),
        (np.array([[3, 1 << 20]]), "outside the vocabulary"),
        (np.array([[3, -1]]), "outside the vocabulary"),
        (np.array([[1], [2]]), "candidates"),
    ],
)
def test_wrong_candidates_are_refused(engine: Engine, candidates: np.ndarray, error: str) -> None:
    made = fitted(engine)
    state = made.sequence(some_text(made.backend, 2))
    with pytest.raises(RowError, match=error):
        made.backend.score([(state, [3])], [1], candidates)


def test_the_likeliest_is_what_a_chain_drafts(engine: Engine) -> None:
    """After complete text rank() and draft_chains() say the same; then along a path of guesses."""
    made = fitted(engine)
    backend = made.backend
    for head in (None, backend.draft_head(None, np.arange(3, 30, 2))):
        state = made.sequence(some_text(backend, 3))
        from specee.backends.protocol import ChainCall

        call = ChainCall(state, made.column(), 4, 0.0, Sampling())
        chain, _ = backend.draft_chains(made.drafter, [call], head)[0]
        column, slot = made.column(), TEXT - 1
        for token in chain:
            ranked = backend.rank(made.drafter, [RankCall(state, column, slot)], 3, head)[0]
            assert ranked[0] == token
            assert len(set(ranked)) == 3
            (slot,) = state.branch([token], None, slot)
            backend.advance([(state, [slot])], 1)


def test_guesses_follow_the_text_and_not_the_calls_before(engine: Engine) -> None:
    """A column that has seen other guesses, rows that were completed, and a rollback ranks as a fresh one."""
    made = fitted(engine)
    backend, config = made.backend, made.backend.config
    rng = np.random.default_rng(8)
    state, column = made.sequence(some_text(backend, 4)), made.column()
    for turn in range(12):
        kind = turn % 4
        if kind == 0:  # a row waits at a layer, and the text goes on
            backend.advance([(state, [state.length - 1])], 1)
            state.append([int(rng.integers(config.vocab_size))])
        elif kind == 1:  # all that wait are completed
            backend.advance([(state, [state.length - 2])], config.num_layers)
        elif kind == 2:  # back, and on with other tokens
            state.rollback(2)
            state.append(rng.integers(0, config.vocab_size, 2).tolist())
            backend.advance([(state, [state.length - 2])], config.num_layers)
        slot = state.length - 1
        if kind == 3:
            slot = state.branch(rng.integers(0, config.vocab_size, 2).tolist())[-1]
        ranked = backend.rank(made.drafter, [RankCall(state, column, slot)], 5)
        assert ranked == backend.rank(made.drafter, [RankCall(state, made.column(), slot)], 5)
        state.commit([])


def test_rank_refuses_what_it_cannot_know(engine: Engine) -> None:
    made = fitted(engine)
    backend = made.backend
    state = made.sequence(some_text(backend, 4))
    with pytest.raises(RowError, match="newest position is not complete"):
        backend.rank(made.drafter, [RankCall(state, made.column(), 2)], 1)
    fresh = made.sequence(some_text(backend, 4), complete=0)
    with pytest.raises(RowError, match="newest position is not complete"):
        backend.rank(made.drafter, [RankCall(fresh, made.column(), TEXT - 1)], 1)
    for k in (0, 1 << 20):
        with pytest.raises(RowError, match="likeliest"):
            backend.rank(made.drafter, [RankCall(state, made.column(), TEXT - 1)], k)
    with pytest.raises(RowError, match="no room"):
        backend.rank(made.drafter, [RankCall(state, made.column(4), TEXT - 1)], 1)
    column = made.column()
    twin = made.sequence(some_text(backend, 4))
    with pytest.raises(RowError, match="twice"):
        backend.rank(made.drafter, [RankCall(state, column, TEXT - 1), RankCall(twin, column, TEXT - 1)], 1)


def plain_exit(
    made: Fitted,
    head: DraftHead,
    text: list[int],
    layers: list[int],
    threshold: float,
    sampling: Sampling,
    *,
    confirm: bool,
) -> tuple[int, int, float]:
    """The same by the verbs that it is made of, each from nothing, and the formula in numpy."""
    backend, parts = made.backend, made.parts
    state = made.sequence(text)
    slot = len(text) - 1
    ids = backend.rank(made.drafter, [RankCall(state, made.column(), slot)], parts.candidates, head)[0]
    before = None
    for layer in layers:
        backend.advance([(state, [slot])], layer)
        scores = backend.score([(state, [slot])], [layer], np.array([ids]))[0, 0]
        now = np.exp(scores - scores.max())
        now = now / now.sum()
        features = np.concatenate((scores, now, now if before is None else now - before))
        before = now
        at = parts.layers.index(layer)
        inner = np.maximum(parts.first[at] @ features + parts.first_bias[at], 0)
        chance = 1 / (1 + np.exp(-float(inner @ parts.second[at] + parts.second_bias[at])))
        assert threshold in (-1, 1) or abs(chance - threshold) > 1e-4, (
            "the seed has a chance too close to call"
        )
        if chance > threshold:
            token = ids[int(np.argmax(scores))]
            if confirm:
                token = int(backend.sample([(state, [slot])], [sampling])[0])
            if token in ids:
                return layer, token, chance
    if not confirm:
        return 0, -1, 0.0
    backend.advance([(state, [slot])], backend.config.num_layers)
    return backend.config.num_layers, int(backend.sample([(state, [slot])], [sampling])[0]), 1.0


@pytest.mark.parametrize(("name", "kind"), KINDS)
@pytest.mark.parametrize("confirm", [False, True])
def test_rows_leave_where_the_formula_says(engine: Engine, name: str, kind: str, confirm: bool) -> None:
    made = fitted(engine, name, kind)
    last = made.backend.config.num_layers
    seen = set()
    texts = [some_text(made.backend, seed) for seed in range(9)]
    layers = [list(range(1, last)), [last - 1], list(range(1, last, 2))]
    head = likely(made, texts)
    calls, wanted = [], []
    for index, text in enumerate(texts):
        own, threshold = layers[index % 3], (-1.0, 0.5, 1.0)[index % 3]
        sampling = Sampling() if index % 2 or not confirm else Sampling(1.0, seed=index)
        wanted.append(plain_exit(made, head, text, own, threshold, sampling, confirm=confirm))
        calls.append(ExitCall(made.sequence(text), made.column(), TEXT - 1, own, threshold, sampling))
    found = made.backend.leave_early(made.drafter, made.exits, calls, head, confirm=confirm).exits
    for call, (layer, token, chance), got in zip(calls, wanted, found, strict=True):
        assert (got.layer, got.token) == (layer, token)
        assert got.confidence == pytest.approx(chance, rel=1e-4)
        assert call.sequence.row(TEXT - 1).done == (layer or call.layers[-1])
        seen.add(layer)
    assert len(seen) > 1, "all left at one layer: the test would not see a difference"


@pytest.mark.parametrize(("name", "kind"), KINDS)
@pytest.mark.parametrize("waiting", [1, 5])
def test_waiting_rows_catch_up_to_the_bit(engine: Engine, name: str, kind: str, waiting: int) -> None:
    """States, caches and logits of a text whose rows left early are those of one that never did."""
    made = fitted(engine, name, kind)
    backend, last = made.backend, made.backend.config.num_layers
    state, column = made.sequence(some_text(backend, 6), 64), made.column(64)
    head = likely(made, [some_text(backend, seed) for seed in range(6, 12)])
    left = []
    for _ in range(14):
        slot = state.length - 1
        own = () if slot - state.frontier[-1] >= waiting else tuple(range(1, last))
        call = ExitCall(state, column, slot, own, -1.0, Sampling())
        (exit_,) = backend.leave_early(made.drafter, made.exits, [call], head, confirm=True).exits
        left.append(exit_.layer)
        state.append([exit_.token])
    assert len(set(left)) > 1, left
    text = [state.row(slot).token for slot in range(state.length)]
    backend.advance([(state, [state.length - 1])], last)
    straight = backend.sequence(64, poison=True)
    straight.keep(range(1, last + 1), 64)
    slots = straight.append(text)
    backend.advance([(straight, slots)], last)
    for layer in range(last):
        for one, other in zip(state.kv(layer, slots), straight.kv(layer, slots), strict=True):
            assert np.array_equal(one, other)
    ids = np.array([np.arange(4)] * len(text))
    every = list(range(1, last + 1))
    kept = range(TEXT, len(text))  # of the prompt some were computed before
    assert np.array_equal(
        backend.score([(state, kept)], every, ids[: len(kept)]),
        backend.score([(straight, kept)], every, ids[: len(kept)]),
    )
    newest = [len(text) - 1]
    assert np.array_equal(backend.logits([(state, newest)]), backend.logits([(straight, newest)]))


def test_wrong_exits_are_refused(engine: Engine) -> None:
    made = fitted(engine)
    backend, last = made.backend, made.backend.config.num_layers
    state = made.sequence(some_text(backend, 6))

    def leave(layers: list[int]) -> None:
        call = ExitCall(state, made.column(), TEXT - 1, layers, 0.5, Sampling())
        backend.leave_early(made.drafter, made.exits, [call], confirm=True)

    with pytest.raises(RowError, match="exit predictor"):
        leave([last])
    with pytest.raises(RowError, match="ascend"):
        leave([2, 1])
    with pytest.raises(ConfigurationError, match="predictors"):
        backend.leave_early(made.drafter, object(), [], confirm=True)  # type: ignore[arg-type]
    assert state.row(TEXT - 1).done == 0
    wrong = random_exits(SHAPES["wide"], np.random.default_rng(1))
    if len(wrong.layers) >= last:
        with pytest.raises(ConfigurationError, match="layers"):
            backend.exit_predictors(wrong)
