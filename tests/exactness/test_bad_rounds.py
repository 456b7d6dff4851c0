"""Rounds that cannot be are refused before anything is text."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from specee.backends.protocol import (
    ChainCall,
    CopyCall,
    ExitChainCall,
    LayerChainCall,
    RoundCall,
    RoundDrafts,
)
from specee.errors import CapacityError, ConfigurationError, RowError, SpeceeError
from specee.types import Sampling
from tests.engines import Engine, all_engines
from tests.exactness.round_world import LAYERS, Text, World, new_state, remaining, world


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
    "the last layer": (RowError, lambda w, t: [_call(t, _layer(t, LAYERS))]),
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
        lambda w, t: [_copying(t), _copying(t)._replace(sequence=new_state(w, [1, 2]))],
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
