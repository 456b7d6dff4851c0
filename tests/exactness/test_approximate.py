"""Approximate decoding: tokens leave early; everything but their choice is the full model's, to the bit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from specee.backends.protocol import Backend
from specee.drafting import DraftHeads
from specee.engine import ActiveSequence, Generation, Request
from specee.errors import ConfigurationError
from specee.models.speculator import Speculator
from specee.policies import (
    Leave,
    LeaveEarly,
    ModelView,
    Needs,
    Observation,
    Outcome,
    PredictedExit,
    make_policy,
)
from specee.types import Sampling
from tests.engines import Engine, all_engines, native_engines
from tests.random_drafter import random_parts
from tests.random_exits import random_exits
from tests.random_model import CONFIGS, random_model

LOW = "specee:mode=approximate,threshold=0.0"
PROMPTS = ((1, 2, 3, 4), (5, 6), (7, 8, 9, 1, 2, 3, 4), (3,))


class Rows:
    """Leaves wherever it can, with any number of waiting rows."""

    name = "rows"

    def __init__(self, waiting: int, layers: Sequence[int] = ()) -> None:
        self._waiting, self._layers, self.exits = waiting, tuple(layers), []

    def begin(self, model: ModelView) -> Needs:
        assert model.exits is not None
        self._known = self._layers or model.exits.layers
        return Needs((PredictedExit(0.0),))

    def plan(self, observation: Observation) -> LeaveEarly:
        return LeaveEarly(
            tuple(Leave(view.id, self._known, 0.0, self._waiting) for view in observation.sequences)
        )

    def observe(self, outcome: Outcome) -> None:
        self.exits += [layer for entry in outcome.rounds for layer in entry.exits]


def fitted(backend: Backend) -> DraftHeads:
    """Sixteen candidates for each row; where the vocabulary has no more, what is said is among them."""
    rng = np.random.default_rng(3)
    config = backend.config
    parts = random_parts(config, (1, config.num_layers), rng)
    exits = random_exits(config, rng, candidates=16)
    return DraftHeads(backend, Speculator(None, {}, parts, exits))


def started(backend: Backend, requests: Sequence[Request]) -> list[ActiveSequence]:
    found = []
    for index, request in enumerate(requests):
        state = backend.sequence(request.capacity, poison=True)
        state.append(request.prompt)
        found.append(ActiveSequence(index, request, state))
    return found


def small(engine: Engine, kind: str = "fp32", name: str = "llama") -> Backend:
    """A vocabulary so small that all of it is proposed."""
    config = replace(CONFIGS[name], vocab_size=16)
    return engine.load(random_model(config, seed=7, kind=kind), kind, threads=2)


@pytest.mark.parametrize("kind", ["fp32", "bf16", "int8"])
@pytest.mark.parametrize("engine", all_engines())
def test_caches_and_states_are_those_of_the_emitted_text(engine: Engine, kind: str) -> None:
    backend = small(engine, kind)
    last = backend.config.num_layers
    for waiting in (0, 1, 3, 16):
        requests = [Request(prompt, 14, Sampling()) for prompt in PROMPTS]
        sequences = started(backend, requests)
        policy = Rows(waiting)
        most = 0
        for _ in Generation(backend, sequences, policy, fitted(backend)):
            for one in sequences:
                if one.finish_reason is None:
                    most = max(most, one.state.length - 1 - one.state.frontier[-1])
        early = [layer for layer in policy.exits if layer < last]
        assert bool(early) == bool(waiting)
        assert most <= waiting + (waiting > 0)
        for one in sequences:
            # All but the newest token, which nothing has computed, is complete without being asked for.
            assert one.state.frontier == (one.state.length - 1,) * last
            slots = range(one.state.length - 1)
            straight = backend.sequence(one.state.capacity)
            straight.append(one.text[:-1])
            backend.advance([(straight, slots)], last)
            for layer in range(last):
                for mine, plain in zip(one.state.kv(layer, slots), straight.kv(layer, slots), strict=True):
                    assert np.array_equal(mine, plain)


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(1.0, seed=3), Sampling(0.8, top_k=5, seed=4)])
@pytest.mark.parametrize("engine", all_engines())
def test_a_row_does_not_depend_on_its_neighbours(engine: Engine, sampling: Sampling) -> None:
    """Each sequence leaves by itself: tokens and exits beside others are those alone."""
    backend = small(engine)

    def decoded(prompts: Sequence[tuple[int, ...]]) -> list[tuple[list[int], list[int]]]:
        requests = [Request(prompt, 12, sampling, frozenset({11})) for prompt in prompts]
        generation = Generation(backend, started(backend, requests), make_policy(LOW), fitted(backend))
        list(generation)
        return [
            (one.generated, [e for r in generation.statistics.rounds(one.id) for e in r.exits])
            for one in generation.sequences.values()
        ]

    together = decoded(PROMPTS)
    assert together == [decoded([prompt])[0] for prompt in PROMPTS]
    assert len({layer for _, exits in together for layer in exits}) > 1


@pytest.mark.parametrize("engine", native_engines())
def test_both_backends_leave_alike(engine: Engine) -> None:
    """Tokens and exits of the reference; chances are random, so that few are close to a threshold."""
    found = []
    for each in (engine, Engine("reference")):
        backend = small(each)
        requests = [Request(prompt, 10) for prompt in PROMPTS]
        policy = make_policy("specee:mode=approximate,threshold=0.37,layers=all")
        generation = Generation(backend, started(backend, requests), policy, fitted(backend))
        list(generation)
        found.append([(entry.tokens, entry.exits) for entry in generation.statistics.rounds()])
    assert found[0] == found[1]
    assert len({exits for _, exits in found[0]}) > 1


def test_nothing_leaves_where_nothing_is_asked() -> None:
    """With no layers, and over a threshold of one, it is plain decoding."""
    backend = small(Engine("reference"))
    texts = []
    for name in ("autoregressive", "specee:mode=approximate,threshold=1.0", "specee:threshold=1.0", LOW):
        sequences = started(backend, [Request(prompt, 12) for prompt in PROMPTS])
        list(Generation(backend, sequences, make_policy(name), fitted(backend)))
        texts.append([one.generated for one in sequences])
    assert texts[0] == texts[1] == texts[2]
    assert texts[0] != texts[3], "the control: leaving anywhere changes the text"


def test_an_interrupted_step_is_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception between any two layers: the text goes on as if nothing had been."""
    backend = small(Engine("reference"))
    heads = fitted(backend)
    whole = started(backend, [Request(PROMPTS[0], 12)])
    list(Generation(backend, whole, make_policy(LOW), heads))
    sequences = started(backend, [Request(PROMPTS[0], 12)])
    original, calls = type(backend).advance, [0]

    class StopError(Exception):
        pass

    def advance(self: Backend, work: object, to_layer: int) -> None:
        calls[0] += 1
        if calls[0] % 3 == 2:
            raise StopError
        original(self, work, to_layer)  # type: ignore[arg-type]

    monkeypatch.setattr(type(backend), "advance", advance)
    stops = 0
    for _ in range(200):
        if sequences[0].finish_reason is not None:
            break
        try:
            list(Generation(backend, sequences, Rows(0), heads))
        except StopError:
            stops += 1
            state = sequences[0].state
            assert [state.row(slot).token for slot in range(state.length)] == sequences[0].text
    assert stops > 3
    plain = started(backend, [Request(PROMPTS[0], 12)])
    monkeypatch.undo()
    list(Generation(backend, plain, make_policy("autoregressive"), heads))
    assert sequences[0].generated == plain[0].generated  # no row may wait, so it is plain decoding


@pytest.mark.parametrize(
    ("layers", "request_", "words"),
    [
        ((9,), Request((1, 2), 4), "exit predictors"),
        ((2, 1), Request((1, 2), 4), "ascending"),
        ((), Request((1, 2), 4, Sampling(1.0), acceptance="rejection"), "mode='lossless'"),
        ((), Request((1, 2), 4, processors=(lambda text, scores: scores,)), "mode='lossless'"),
    ],
)
def test_plans_that_cannot_be_carried_out(layers: tuple[int, ...], request_: Request, words: str) -> None:
    backend = small(Engine("reference"))
    sequences = started(backend, [request_])
    with pytest.raises(ConfigurationError, match=words):
        list(Generation(backend, sequences, Rows(3, layers), fitted(backend)))
    assert sequences[0].generated == []


def test_without_predictors_it_is_refused() -> None:
    backend = small(Engine("reference"))
    with pytest.raises(ConfigurationError, match="specee fit"):
        Generation(backend, started(backend, [Request((1,), 4)]), make_policy(LOW))
