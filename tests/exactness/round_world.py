"""Texts and calls of whole rounds, at random: what the tests of them share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from specee.backends import plain_rounds
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
    RoundTurn,
    SequenceState,
    TreeCall,
)
from specee.types import Sampling
from tests.engines import Engine
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


def plainly(backend: Backend, text: Text) -> list[int]:
    """A token at a time, whatever ends the text."""
    state, made = backend.sequence(text.state.capacity), []
    state.append(text.prompt)
    for _ in range(MOST):
        [token], _, _ = backend.verify([(state, [state.length - 1])], [text.sampling])
        state.append([token])
        made.append(token)
    return made


def new_state(here: World, prompt: list[int]) -> SequenceState:
    state = here.backend.sequence(len(prompt) + MOST)
    state.append(prompt)
    return state
