"""Whole rounds in one call: the text of plain decoding, and what the other verbs give one by one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import cycle
from typing import Any, NamedTuple, get_args

import numpy as np
import pytest

from specee.backends import plain_rounds
from specee.backends.plain_copies import CopiedText
from specee.backends.protocol import (
    Backend,
    ChainCall,
    CopyCall,
    CopyIndex,
    DraftHead,
    ExitChainCall,
    FittedColumn,
    FittedDrafter,
    FittedExits,
    LayerChainCall,
    RoundCall,
    RoundDrafts,
    RoundText,
    RoundTurn,
    SequenceState,
    TreeCall,
)
from specee.errors import CapacityError, ConfigurationError, RowError, SpeceeError
from specee.types import Sampling
from tests.engines import Engine, all_engines, native_engines
from tests.exactness.test_draft_heads import random_adapter
from tests.exactness.test_speculation import SAMPLINGS
from tests.random_drafter import random_parts
from tests.random_exits import random_exits
from tests.random_model import CONFIGS, random_model

VOCAB = 10  # so that drafts are right at times
CONFIG = replace(CONFIGS["qwen3"], vocab_size=VOCAB)
LAYERS = CONFIG.num_layers
MOST = 24  # new tokens


class Text(NamedTuple):
    """One sequence, what its drafts are made with, and what its text is drawn with."""

    state: SequenceState
    column: FittedColumn
    ngrams: CopyIndex
    sampling: Sampling
    ends: frozenset[int]
    prompt: list[int]


class World(NamedTuple):
    backend: Backend
    drafter: FittedDrafter
    head: DraftHead | None
    exits: FittedExits
    adapted: DraftHead
    """For exit layers."""

    def run(self, calls: Sequence[RoundCall], turns: int = 1) -> list[RoundTurn]:
        return self.backend.run_rounds(calls, self.drafter, self.head, turns, self.exits)

    def plainly(self, calls: Sequence[RoundCall], turns: int) -> list[RoundTurn]:
        """The same by the other verbs."""
        return plain_rounds.run_rounds(self.backend, calls, self.drafter, self.head, turns, self.exits)


def world(engine: Engine, kind: str = "fp32") -> World:
    backend = engine.load(random_model(CONFIG, seed=11, kind=kind), kind, threads=2)
    rng = np.random.default_rng(3)
    drafter = backend.drafter(random_parts(CONFIG, (1, LAYERS), rng))
    exits = backend.exit_predictors(random_exits(CONFIG, rng, candidates=3))
    head = backend.draft_head(None, rng.permutation(VOCAB)[: VOCAB - 2])
    adapted = backend.draft_head(random_adapter(CONFIG.hidden_size, 4), None)
    return World(backend, drafter, head, exits, adapted)


def begun(
    here: World, rng: np.random.Generator, count: int, index: Callable[[int, int], CopyIndex] | None = None
) -> list[Text]:
    """Sequences with prompts of which nothing is computed yet. ``index``: the backend's own if None."""
    texts = []
    for _ in range(count):
        prompt = rng.integers(VOCAB, size=int(rng.integers(1, 7))).tolist()
        capacity = len(prompt) + MOST
        state = here.backend.sequence(capacity, poison=True)
        if rng.random() < 0.8:
            state.keep((1, LAYERS), 4)
        state.append(prompt)
        column = here.drafter.column(capacity, "fp16", poison=True)
        ends = frozenset(rng.integers(VOCAB, size=int(rng.integers(0, 2))).tolist())
        sampling = replace(SAMPLINGS[int(rng.integers(len(SAMPLINGS)))], seed=int(rng.integers(99)))
        shortest = int(rng.integers(1, 3))
        ngrams = (index or here.backend.copies)(shortest + int(rng.integers(2)), shortest)
        texts.append(Text(state, column, ngrams, sampling, ends, prompt))
    return texts


def remaining(text: Text) -> int:
    return text.state.capacity - text.state.length


def a_call(here: World, text: Text, rng: np.random.Generator) -> RoundCall:
    """Drafts of any kind, copies before them, or rows of any depth that are there already."""
    state, left = text.state, remaining(text)
    asked = int(rng.integers(1, left + 1))
    most = min(left - 1, 6)
    if most < 1:
        return RoundCall(state, text.sampling, text.ends, asked)
    copies: CopyCall | None = None
    drafts = some_drafts(here, text, most, rng)
    if drafts is None and rng.random() < 0.5:
        branched(here, state, most, rng)
    elif rng.random() < 0.5:
        copies = CopyCall(text.ngrams, int(rng.integers(1, most + 1)), float(rng.choice([0, 0.7])))
    return RoundCall(state, text.sampling, text.ends, asked, drafts, copies)


def some_drafts(here: World, text: Text, most: int, rng: np.random.Generator) -> RoundDrafts | None:
    state, column, length = text.state, text.column, int(rng.integers(1, most + 1))
    stop_below = float(rng.choice([0, 0.3]))
    kind = rng.integers(6)
    if kind == 0:
        return ChainCall(state, column, length, stop_below, text.sampling)
    if kind == 1:
        return TreeCall(state, column, length, *rng.integers(1, 4, 3).tolist(), 0.0, 0.0, text.sampling)
    if kind == 2:
        layer, head = int(rng.integers(1, LAYERS)), (None, here.head, here.adapted)[rng.integers(3)]
        return LayerChainCall(state, layer, head, length, stop_below, text.sampling)
    if kind == 3:
        known = here.exits.layers
        layers = tuple([layer for layer in known if rng.random() < 0.8])
        return ExitChainCall(
            state, column, length, stop_below, layers, float(rng.choice([0.2, 0.5])), text.sampling
        )
    return None


def branched(here: World, state: SequenceState, most: int, rng: np.random.Generator) -> None:
    """A tree of random rows, some of them a layer deep."""
    parents = [int(rng.integers(-1, i)) for i in range(most)]
    slots = state.branch(_distinct(parents, rng), parents)
    if rng.random() < 0.5:
        here.backend.advance([(state, slots[: most // 2])], 1)


def _distinct(parents: Sequence[int], rng: np.random.Generator) -> list[int]:
    """Random tokens, siblings with different ones."""
    taken: dict[int, list[int]] = {}
    for parent in parents:
        taken.setdefault(parent, rng.permutation(VOCAB).tolist())
    return [taken[parent].pop() for parent in parents]


def seen(state: SequenceState) -> tuple[Any, ...]:
    """All there is to a sequence: NaN of slots that hold nothing included."""
    rows = [state.row(slot) for slot in range(state.length)]
    slots = [row.slot for row in rows if row.done == LAYERS]
    cache = [part.tobytes() for layer in range(LAYERS) for part in state.kv(layer, slots)]
    return rows, state.frontier, state.speculative, state.kept, cache


def go_on(state: SequenceState) -> None:
    """Behind the end: the newest row is computed again, as the engine has it."""
    newest = state.row(state.length - 1)
    if newest.done:
        state.rollback(1)
        state.append([newest.token])


@pytest.mark.parametrize("kind", ["fp32", "bf16"])
@pytest.mark.parametrize("engine", native_engines())
def test_a_native_round_is_its_verbs_one_by_one(engine: Engine, kind: str) -> None:
    seed = int(np.random.default_rng().integers(2**31))
    print("seed", seed)
    here = world(engine, kind)
    copied = left = longest = 0
    kinds: Counter[str] = Counter()  # drafts and accepted ones
    for turn in range(80):
        if turn >= 8 and right_and_wrong(kinds):
            break
        native, plain = (
            begun(here, np.random.default_rng([seed, turn]), 3, index) for index in (None, CopiedText)
        )
        rngs = [np.random.default_rng([seed, turn, 1]) for _ in range(2)]
        for _ in range(8):
            open_texts = [pair for pair in zip(native, plain, strict=True) if remaining(pair[0])]
            if not open_texts:
                break
            calls = [a_call(here, text, rngs[0]) for text, _ in open_texts]
            others = [a_call(here, text, rngs[1]) for _, text in open_texts]
            turns, _ = (int(rng.integers(1, 5)) for rng in rngs)
            found = here.run(calls, turns)
            wanted = here.plainly(others, turns)
            assert 1 <= len(found) == len(wanted) <= turns
            longest = max(longest, len(found))
            assert len(all_texts(found)) == len(all_texts(wanted))
            for one, other, call in zip(all_texts(found), all_texts(wanted), cycle(calls), strict=False):
                kind = "copies" if one.copied else type(call.drafts).__name__
                kinds[f"{kind} made"] += len(one.confidences)
                kinds[f"{kind} right"] += len(one.accepted)
                assert one[:2] == other[:2]
                assert (one.depth, one.copied, one.exits) == (other.depth, other.copied, other.exits)
                np.testing.assert_allclose(one.confidences, other.confidences, rtol=1e-5)
                copied += one.copied
                left += len(one.exits)
            for text, twin in open_texts:
                assert seen(text.state) == seen(twin.state)
                go_on(text.state)
                go_on(twin.state)
    assert copied > 0
    assert left > 0
    assert right_and_wrong(kinds), kinds


def right_and_wrong(kinds: Counter[str]) -> bool:
    """Whether drafts of every kind were kept and dropped."""
    names = [kind.__name__ for kind in get_args(RoundDrafts)]
    return all(kinds[f"{name} made"] > kinds[f"{name} right"] > 0 for name in names)


def test_rounds_give_the_text_of_plain_decoding(engine: Engine) -> None:
    seed = int(np.random.default_rng().integers(2**31))
    print("seed", seed)
    here = world(engine)
    rng = np.random.default_rng(seed)
    texts = begun(here, rng, 4)
    given: list[list[int]] = [[] for _ in texts]
    while open_texts := [i for i, text in enumerate(texts) if remaining(text)]:
        calls = [a_call(here, texts[i], rng) for i in open_texts]
        found = here.run(calls, int(rng.integers(1, 5)))
        for place, (i, call) in enumerate(zip(open_texts, calls, strict=True)):
            tokens = [token for done in found for token in done.texts[place].tokens]
            assert len(found) <= len(tokens) <= call.remaining
            assert not set(tokens[:-1]) & texts[i].ends, "a text went on behind its end"
            assert not any(done.texts[place].copied for done in found[:-1]), "nobody was asked after a copy"
            assert texts[i].state.speculative == ()
            go_on(texts[i].state)
            given[i] += tokens
        assert min(min(done[1:]) for done in found) >= 0
    for text, tokens in zip(texts, given, strict=True):
        assert tokens == plainly(here.backend, text)
        rows = [text.state.row(slot).token for slot in range(text.state.length)]
        assert rows == [*text.prompt, *tokens]


def all_texts(found: Sequence[RoundTurn]) -> list[RoundText]:
    return [text for done in found for text in done.texts]


def plainly(backend: Backend, text: Text) -> list[int]:
    """A token at a time, whatever ends the text."""
    state, made = backend.sequence(text.state.capacity), []
    state.append(text.prompt)
    for _ in range(MOST):
        [token], _, _ = backend.verify([(state, [state.length - 1])], [text.sampling])
        state.append([token])
        made.append(token)
    return made


class Foreign:
    """What no backend has made."""


BAD: dict[str, tuple[type[SpeceeError], Callable[[World, Text], Sequence[RoundCall]]]] = {
    "nothing may be given": (RowError, lambda w, t: [_call(t, remaining=0)]),
    "no text": (RowError, lambda w, t: [_call(t)._replace(sequence=w.backend.sequence(4))]),
    "a sequence twice": (RowError, lambda w, t: [_call(t), _call(t)]),
    "more than there is room for": (CapacityError, lambda w, t: [_full(t)]),
    "drafts of another sequence": (
        RowError,
        lambda w, t: [_call(t, ChainCall(w.backend.sequence(4), t.column, 1, 0.0, Sampling()))],
    ),
    "no drafts of a chain": (RowError, lambda w, t: [_call(t, _chain(t, 0))]),
    "drafts without a drafter": (ConfigurationError, lambda w, t: [_call(t, _chain(t, 1))]),
    "no drafts of a layer": (RowError, lambda w, t: [_call(t, _layer(t, 1, length=0))]),
    "a layer too deep": (RowError, lambda w, t: [_call(t, _layer(t, LAYERS + 1))]),
    "no layer at all": (RowError, lambda w, t: [_call(t, _layer(t, 0))]),
    "a head of another backend": (
        ConfigurationError,
        lambda w, t: [_call(t, _layer(t, 1)._replace(head=Foreign()))],
    ),
    "predicted exits without a drafter": (ConfigurationError, lambda w, t: [_call(t, _exits(w, t))]),
    "exits without predictors": (ConfigurationError, lambda w, t: [_call(t, _exits(w, t))]),
    "a layer without a predictor": (
        RowError,
        lambda w, t: [_call(t, _exits(w, t)._replace(layers=(LAYERS,)))],
    ),
    "no tokens of a copy": (RowError, lambda w, t: [_call(t)._replace(copies=CopyCall(t.ngrams, 0, 0.0))]),
    "one index for two": (
        RowError,
        lambda w, t: [_copying(t), _copying(t)._replace(sequence=_state(w, [1, 2]))],
    ),
    "drafts beside rows that are there": (RowError, lambda w, t: [_branched(t, _copying(t))]),
    "copies of another backend": (
        ConfigurationError,
        lambda w, t: [_call(t)._replace(copies=CopyCall(Foreign(), 2, 0.0))],
    ),
}


def _layer(text: Text, layer: int, length: int = 2) -> LayerChainCall:
    return LayerChainCall(text.state, layer, None, length, 0.0, text.sampling)


def _exits(here: World, text: Text) -> ExitChainCall:
    return ExitChainCall(text.state, text.column, 2, 0.0, here.exits.layers, 0.5, text.sampling)


def _call(text: Text, drafts: RoundDrafts | None = None, remaining: int = 3) -> RoundCall:
    return RoundCall(text.state, text.sampling, text.ends, remaining, drafts)


def _copying(text: Text) -> RoundCall:
    return _call(text)._replace(copies=CopyCall(text.ngrams, 2, 0.0))


def _branched(text: Text, call: RoundCall) -> RoundCall:
    text.state.branch([1, 2])
    return call


def _chain(text: Text, length: int) -> ChainCall:
    return ChainCall(text.state, text.column, length, 0.0, text.sampling)


def _full(text: Text) -> RoundCall:
    text.state.append([1] * remaining(text))
    return _call(text)


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("engine", all_engines())
def test_bad_rounds_are_refused_and_give_nothing(engine: Engine, name: str) -> None:
    here = world(engine)
    state = here.backend.sequence(20)
    state.keep((1, LAYERS), 4)
    state.append([1, 2, 3])
    here.backend.advance([(state, [1])], LAYERS)
    ngrams = here.backend.copies(2, 1)
    text = Text(state, here.drafter.column(20, "fp16"), ngrams, Sampling(), frozenset(), [1, 2, 3])
    error, make = BAD[name]
    calls = make(here, text)
    before = state.length
    drafter = None if "without a drafter" in name else here.drafter
    exits = None if "without predictors" in name else here.exits
    with pytest.raises(error):
        here.backend.run_rounds(calls, drafter, exits=exits)
    assert state.length == before
    assert bool(state.speculative) is ("rows that are there" in name)
    if name != "more than there is room for":
        state.commit([])
        assert here.backend.run_rounds([_call(text)])[0].texts[0].tokens


@pytest.mark.parametrize("engine", all_engines())
def test_turns_end_where_something_is_to_be_decided(engine: Engine) -> None:
    here = world(engine)
    rng = np.random.default_rng(5)
    prompt = rng.integers(VOCAB, size=4).tolist()
    plain = plainly(here.backend, Text(_state(here, prompt), None, None, Sampling(), frozenset(), prompt))  # type: ignore[arg-type]

    def turns(ends: frozenset[int], remaining: int, copies: CopyCall | None = None) -> list[list[int]]:
        call = RoundCall(_state(here, prompt), Sampling(), ends, remaining, None, copies)
        return [list(done.texts[0].tokens) for done in here.backend.run_rounds([call], turns=6)]

    assert turns(frozenset(), MOST) == [[token] for token in plain[:6]]
    assert turns(frozenset(), 4) == [[token] for token in plain[:4]], "no more than may be given"
    end = plain[2]
    until = plain.index(end) + 1
    assert turns(frozenset({end}), MOST) == [[token] for token in plain[:until]], "none behind the end"
    waits = CopyCall(here.backend.copies(9, 9), MOST - 3, 0.0)  # finds nothing in so short a text
    assert turns(frozenset(), MOST, waits) == [[token] for token in plain[:3]], "no room for another copy"
    for count in (0, -1):
        with pytest.raises(RowError, match=f"{count} turns"):
            here.backend.run_rounds([RoundCall(_state(here, prompt), Sampling(), (), 3)], turns=count)
    for longest, shortest in ((1, 2), (0, 0), (3, -1)):
        with pytest.raises(RowError, match=f"{longest} to {shortest} tokens"):
            here.backend.copies(longest, shortest)


def _state(here: World, prompt: list[int]) -> SequenceState:
    state = here.backend.sequence(len(prompt) + MOST)
    state.append(prompt)
    return state


@pytest.mark.parametrize("engine", all_engines())
def test_copies_follow_a_text_that_is_cut(engine: Engine) -> None:
    """What is copied is of the text that is there, not of one that was."""
    here = world(engine)
    ngrams, state = here.backend.copies(1, 1), here.backend.sequence(40)

    def copied(text: list[int]) -> tuple[int, ...]:
        state.rollback(state.length)
        state.append(text)
        call = RoundCall(state, Sampling(), (), 6, None, CopyCall(ngrams, 3, 0.0))
        [done] = here.backend.run_rounds([call])
        assert done.texts[0].copied is (text[-1] in text[:-1])
        return (len(done.texts[0].confidences), *np.round(done.texts[0].confidences[:1], 4).tolist())

    assert copied([1, 2, 3, 4, 5, 1]) == (3, round(2 / 3, 4))
    assert copied([7, 8]) == (0,)
    assert copied([7, 8, 7, 8, 7]) == (3, round(3 / 4, 4)), "followed twice by the same"
    assert copied([7, 8, 7, 8, 6, 5, 6]) == (3, round(2 / 3, 4)), "as long as before, and another"
    assert copied([1, 2, 3, 4, 5, 9, 8]) == (0,)
