"""A replay of what a model recorded, against the engine with that model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from specee.backends.protocol import Backend
from specee.engine import Generation, Request, reserve
from specee.errors import CapacityError, ConfigurationError
from specee.policies import (
    Draft,
    ExitLayer,
    ModelView,
    Needs,
    NgramLookup,
    Observation,
    Outcome,
    Plan,
    Policy,
    Shadow,
    Speculate,
    make_policy,
)
from specee.replay import Trace, replay
from specee.replay.record import record
from tests.engines import Engine, all_engines
from tests.random_model import BASE, random_model
from tests.unit.recorded import TABLE

LAYERS, TOKENS = 6, 40
CONFIG = replace(BASE, num_layers=LAYERS, windows=(0,) * LAYERS)
# Of one token, shorter and longer than what is recorded of a prompt, and one that repeats itself.
PROMPTS = [(7,), (1, 2, 3), tuple(range(3, 43)), (5, 6, 7, 8) * 4]


@pytest.fixture(scope="module", params=all_engines())
def backend(request: pytest.FixtureRequest) -> Backend:
    """Layers of little effect, so that exit layers are often right."""
    model = random_model(CONFIG, seed=5)
    for (role, _), weights in model.weights.items():
        if role in ("o", "down"):
            np.multiply(weights, 0.25, out=weights)
    engine: Engine = request.param
    return engine.load(model)


@pytest.fixture(scope="module")
def trace(backend: Backend) -> Trace:
    return record(backend, PROMPTS, TOKENS, name="tiny", latency=TABLE)


def real(backend: Backend, prompt: Sequence[int], policy: str | Policy) -> Generation:
    """The policy is asked before every round, as in replays."""
    sequences = reserve(backend, [Request(tuple(prompt), TOKENS)])
    generation = Generation(backend, sequences, make_policy(policy), burst=0)
    list(generation)
    return generation


def test_the_record_is_plain_decoding_layer_by_layer(backend: Backend, trace: Trace) -> None:
    for prompt, text in zip(PROMPTS, trace.texts, strict=True):
        assert text.words[len(prompt) :] == tuple(
            real(backend, prompt, "autoregressive").sequences[0].generated
        )
        assert text.first == max(0, len(prompt) - 32)
    text = trace.texts[2]
    assert text.matches[:, :-1].any()
    assert not text.matches.all()
    for layer in range(1, LAYERS + 1):
        sequence = backend.sequence(len(text))
        slots = sequence.append(text.words[:-1])
        backend.advance([(sequence, slots)], layer)
        rows = [(sequence, slots[text.first :])]
        logits = backend.logits(rows).astype(np.float64)
        chances = np.exp(logits - logits.max(axis=1, keepdims=True))
        chances /= chances.sum(axis=1, keepdims=True)
        assert np.array_equal(backend.argmax(rows), text.drafts[:, layer - 1])
        assert chances.max(axis=1) == pytest.approx(text.confidences[:, layer - 1], rel=1e-4)


@pytest.mark.parametrize("policy", [
    "autoregressive",
    "layerskip:exit_layer=2,speculation_length=3",
    "layerskip:exit_layer=5,speculation_length=6",
    "layerskip-adaptive:exit_layer=4",
    "threshold:exit_layer=5,threshold=0.0,target=0.0",  # stops at nothing: what is unknown decides nothing
    "prompt-lookup",
    "prompt-lookup:longest_ngram=2,shortest_ngram=1",
])  # fmt: skip
def test_rounds_are_those_of_the_engine(backend: Backend, trace: Trace, policy: str) -> None:
    run = replay(policy, trace)
    for prompt, rounds in zip(PROMPTS, run.texts, strict=True):
        found = real(backend, prompt, policy).statistics.rounds()
        assert [entry.round._replace(confidences=()) for entry in rounds] == [
            entry._replace(confidences=()) for entry in found
        ]
        for entry, other in zip(rounds, found, strict=True):
            # After the first wrong draft the engine knows what a replay does not.
            known = min(other.accepted + 1, other.drafted)
            assert entry.round.confidences[:known] == pytest.approx(other.confidences[:known], rel=1e-4)


def test_the_published_del_goes_the_same_way(backend: Backend, trace: Trace) -> None:
    """It learns from shadows alone; only how many drafts follow a wrong one is not known."""
    run = replay("del:faithful=true", trace)
    for prompt, rounds in zip(PROMPTS, run.texts, strict=True):
        found = real(backend, prompt, "del:faithful=true").statistics
        assert [(e.round.tokens, e.round.accepted, e.round.source) for e in rounds] == [
            (e.tokens, e.accepted, e.source) for e in found.rounds()
        ]
        assert [_shadows(e.outcome) for e in rounds] == [_shadows(o) for o in found.outcomes]


class Looking:
    """Drafts and looks in a pattern of its own, whatever comes of it."""

    name = "looking"

    def __init__(self, judged: bool, kept: int) -> None:
        self._needs = Needs((), (1, 3, 5, *([LAYERS] if judged else [])), kept)

    def begin(self, model: ModelView) -> Needs:
        self._round = 0
        return self._needs

    def plan(self, observation: Observation) -> Plan:
        [view] = observation.sequences
        self._round += 1
        length = 0 if view.fresh else min(self._round % 5, view.remaining - 1)
        otherwise = Draft(0, ExitLayer(4), 0 if view.fresh else min(2, view.remaining - 1))
        draft = Draft(0, NgramLookup(3, 1), length, 0.0, otherwise) if self._round % 2 else otherwise
        positions = (None, 1, 3, 40)[self._round % 4]
        return Speculate((draft,), (Shadow(0, ((1, 5), (3,), (5, 3, 1))[self._round % 3], positions),))

    def observe(self, outcome: Outcome) -> None:
        """Nothing."""


@pytest.mark.parametrize("judged", [True, False])
@pytest.mark.parametrize("kept", [1, 4, 32])
def test_shadows_are_those_of_the_engine(backend: Backend, trace: Trace, judged: bool, kept: int) -> None:
    run = replay(Looking(judged, kept), trace)
    for prompt, rounds in zip(PROMPTS, run.texts, strict=True):
        found = real(backend, prompt, Looking(judged, kept)).statistics.outcomes
        assert [_shadows(e.outcome) for e in rounds] == [_shadows(o) for o in found]
        assert any(e.outcome.shadows for e in rounds)
        sure = [c for e in rounds for s in e.outcome.shadows for c in s.confidences]
        assert sure == pytest.approx([c for o in found for s in o.shadows for c in s.confidences], rel=1e-4)


def _shadows(outcome: Outcome) -> list[tuple[int, int, tuple[bool, ...]]]:
    return [(shadow.sequence, shadow.layer, shadow.matches) for shadow in outcome.shadows]


def test_recording_ends_at_an_end_of_text(backend: Backend, trace: Trace) -> None:
    text = trace.texts[1]
    end = text.words[8]
    found = record(backend, [PROMPTS[1]], TOKENS, eos=[end], latency=TABLE).texts[0]
    length = text.words.index(end, 3) + 1
    assert found.words == text.words[:length]
    assert np.array_equal(found.drafts, text.drafts[: length - 1])


def test_prices_are_measured_if_none_are_given(backend: Backend) -> None:
    trace = record(backend, [(1, 2)], 3)
    assert trace.latency.rows[0] == 1
    assert replay("autoregressive", trace).ratio == pytest.approx(1.0)


def test_what_cannot_be_recorded_is_refused(backend: Backend) -> None:
    for prompts, tokens in (([()], 3), ([(1,)], 0), ([], 3)):
        with pytest.raises(ConfigurationError):
            record(backend, prompts, tokens, latency=TABLE)
    with pytest.raises(CapacityError):
        record(backend, [(1,)], 1000, latency=TABLE)
