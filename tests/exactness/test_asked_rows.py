"""Nodes of trees that predictors are asked about together, and what the block names as likely after them."""

from __future__ import annotations

import numpy as np
import pytest

from specee.backends.protocol import AskCall, RankCall, TreeCall
from specee.errors import ConfigurationError, RowError
from specee.sampling import sample
from specee.types import Sampling
from tests.engines import Engine, all_engines
from tests.exactness.test_early_exit import CANDIDATES, KINDS, Fitted, fitted, some_text
from tests.random_exits import random_exits
from tests.random_model import SHAPES

pytestmark = pytest.mark.parametrize("engine", all_engines())
OPTIONS = [Sampling(), Sampling(1.0, seed=4), Sampling(0.0, repetition_penalty=1.3)]


def some_tree(made: Fitted, rng: np.random.Generator, nodes: int) -> tuple[list[int], list[int]]:
    """Tokens and parents, no siblings alike."""
    parents = [int(rng.integers(-1, node)) for node in range(nodes)]
    return rng.permutation(made.backend.config.vocab_size)[:nodes].tolist(), parents


def by_formula(made: Fitted, layer: int, scores: np.ndarray, before: np.ndarray | None) -> float:
    """The predictor's chance, for scores (k,) and probabilities (k,) of the layer asked before."""
    parts, now = made.parts, np.exp(scores - scores.max())
    now = now / now.sum()
    features = np.concatenate((scores, now, now if before is None else now - before))
    at = parts.layers.index(layer)
    inner = np.maximum(parts.first[at] @ features + parts.first_bias[at], 0)
    return float(1 / (1 + np.exp(-float(inner @ parts.second[at] + parts.second_bias[at]))))


@pytest.mark.parametrize(("name", "kind"), KINDS)
def test_answers_are_those_of_the_formula(engine: Engine, name: str, kind: str) -> None:
    """Two sequences side by side, at some of the layers: logits to the bit, chances to rounding."""
    rng = np.random.default_rng()
    print("state", rng.bit_generator.state["state"]["state"])
    made = fitted(engine, name, kind)
    backend, vocab, last = made.backend, made.backend.config.vocab_size, made.backend.config.num_layers
    texts, calls, known = [], [], []
    for index, sampling in enumerate(OPTIONS[:2]):
        state = made.sequence(some_text(backend, index))
        slots = [state.length - 1, *state.branch(*some_tree(made, rng, 7))]
        calls.append(AskCall(state, slots, range(len(known), len(known) + len(slots)), sampling))
        known += [rng.permutation(vocab)[:CANDIDATES].tolist() for _ in slots]
        texts.append((state, slots))
    rows = backend.exit_rows(made.exits, known)
    before: list[np.ndarray | None] = [None] * len(known)
    for layer in [one for one in made.exits.layers if one == last - 1 or rng.random() < 0.6]:
        backend.advance(texts, layer)
        answers = backend.ask_exits(rows, layer, calls)
        logits = backend.logits(texts)
        assert len(answers) == len(known)
        for at, (answer, ids) in enumerate(zip(answers, known, strict=True)):
            scores = logits[at][ids]
            wanted = by_formula(made, layer, scores, before[at])
            assert answer.chance == pytest.approx(wanted, rel=1e-3, abs=1e-6)
            chances = np.exp(scores - scores.max())
            before[at] = chances / chances.sum()
            call = calls[at // 8]
            dense = np.full(vocab, -np.inf, np.float32)
            dense[ids] = scores
            position = call.sequence.row(call.slots[at % 8]).position + 1
            assert answer.token == sample(dense, call.sampling, position)


def test_a_row_is_asked_about_by_itself(engine: Engine) -> None:
    """To the bit: some now, the others later, in any order."""
    made, rng = fitted(engine), np.random.default_rng(6)
    backend = made.backend
    state = made.sequence(some_text(backend, 1), capacity=100)
    slots = [state.length - 1, *state.branch(*some_tree(made, rng, 59))]
    known = [rng.permutation(backend.config.vocab_size)[:CANDIDATES].tolist() for _ in slots]
    whole, apart = (backend.exit_rows(made.exits, known) for _ in range(2))
    for layer in made.exits.layers:
        backend.advance([(state, slots)], layer)
        together = backend.ask_exits(whole, layer, [AskCall(state, slots, range(60), Sampling())])
        order = rng.permutation(60).tolist()
        for part in (order[:1], order[1:20], order[20:]):
            call = AskCall(state, [slots[at] for at in part], part, Sampling())
            assert backend.ask_exits(apart, layer, [call]) == [together[at] for at in part]
        assert len({answer.chance for answer in together}) > 30


def test_asking_about_no_row_says_nothing(engine: Engine) -> None:
    """A tree of which nothing is left is still a call."""
    made = fitted(engine)
    state = made.sequence(some_text(made.backend, 1))
    rows = made.backend.exit_rows(made.exits, [])
    for calls in ([], [AskCall(state, [], [], Sampling())]):
        assert made.backend.ask_exits(rows, made.exits.layers[0], calls) == []


def test_what_cannot_be_asked_is_refused(engine: Engine) -> None:
    made = fitted(engine)
    backend = made.backend
    state = made.sequence(some_text(backend, 1))
    slot = state.length - 1
    ids = list(range(CANDIDATES))
    rows = backend.exit_rows(made.exits, [ids, ids])

    def ask(layer: int, slots: list[int], named: list[int]) -> None:
        backend.ask_exits(rows, layer, [AskCall(state, slots, named, Sampling())])

    with pytest.raises(RowError):
        ask(1, [slot], [0])  # has done no layer
    backend.advance([(state, [slot])], 2)
    (below,) = state.branch([1])
    backend.advance([(state, [below])], 2)
    for layer, slots, named, words in (
        (1, [slot], [0], "layer 1"),
        (2, [slot], [2], "candidates"),
        (2, [slot], [-1], "candidates"),
        (2, [slot], [], "as many"),
        (2, [slot, below], [1, 1], "twice"),
        (made.backend.config.num_layers, [slot], [0], "exit predictor"),
    ):
        with pytest.raises(RowError, match=words):
            ask(layer, slots, named)
    ask(2, [slot, below], [1, 0])
    for wrong in ([ids[:-1]], [[*ids[:-1], ids[0]]], [[*ids[:-1], 1 << 20]]):
        with pytest.raises(RowError):
            backend.exit_rows(made.exits, wrong)
    with pytest.raises(ConfigurationError, match="predictors"):
        backend.exit_rows(object(), [ids])  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="exit_rows"):
        backend.ask_exits(object(), 1, [])  # type: ignore[arg-type]
    assert random_exits(SHAPES["llama"], np.random.default_rng(1)).layers == made.exits.layers


@pytest.mark.parametrize("sampling", OPTIONS)
@pytest.mark.parametrize("waiting", [1, 4])
def test_likely_tokens_are_those_that_rank_gives(engine: Engine, sampling: Sampling, waiting: int) -> None:
    """After every node of a tree, also of one that begins behind positions which wait."""
    made = fitted(engine)
    backend = made.backend
    text = some_text(backend, 8, 12)
    state, column = made.sequence(text, 64, complete=len(text) - waiting), made.column(64)
    limits = 30, 4, 3, 3, 0.0, 0.0
    head = backend.draft_head(None, np.arange(0, backend.config.vocab_size, 2))
    (tree,) = backend.draft_trees(made.drafter, [TreeCall(state, column, *limits, sampling, 5)], head)
    (other,) = backend.draft_trees(made.drafter, [TreeCall(state, made.column(64), *limits, sampling)], head)
    assert tree == other._replace(likely=tree.likely)
    assert other.likely == []
    assert len(tree.likely) == len(tree.tokens) + 1
    slots = [state.length - 1, *state.branch(tree.tokens, tree.parents)]
    looked = [node for node, after in enumerate(tree.likely) if after]
    assert {parent + 1 for parent in tree.parents} <= set(looked)
    assert len(looked) > 4
    for node in looked:
        (ranked,) = backend.rank(made.drafter, [RankCall(state, made.column(64), slots[node])], 5, head)
        assert tree.likely[node] == ranked
    if waiting > 1:  # the tree without branches is what guesses say one after the other
        state.commit([])
        (chain,) = backend.draft_trees(
            made.drafter, [TreeCall(state, column, 5, 5, 1, 1, 0.0, 0.0, Sampling())], head
        )
        slot = state.length - 1
        for token in chain.tokens:
            assert backend.rank(made.drafter, [RankCall(state, column, slot)], 1, head) == [[token]]
            (slot,) = state.branch([token], None, slot)
