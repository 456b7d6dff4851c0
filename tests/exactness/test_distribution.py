"""The joint distribution of three sampled tokens, against exact enumeration, for both acceptance rules."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from specee import acceptance
from specee.acceptance import Acceptance, probabilities
from specee.backends.protocol import Backend
from specee.drafting import DraftHeads, exit_layer
from specee.engine import Generation, Request, reserve, verify
from specee.models.speculator import Adapter, Speculator
from specee.policies import (
    Draft,
    ExitLayer,
    ModelView,
    Needs,
    Observation,
    Outcome,
    Speculate,
    make_policy,
)
from specee.types import Sampling
from tests.engines import Engine, native_engines
from tests.exactness.credulous import keep_first_drafts
from tests.random_drafter import random_parts
from tests.random_exits import random_exits
from tests.random_model import BASE, random_model

VOCAB, TOKENS, DRAWS, ROWS = 5, 3, 4_000, 50
PROMPT = (0, 3, 1, 2, 4, 1)  # every token, so that lookup finds the latest one
POLICIES = [
    "layerskip:exit_layer=1,speculation_length=2",
    "prompt-lookup:speculation_length=2,shortest_ngram=1",
    "threshold:exit_layer=2",
]
OPTIONS = [Sampling(1.0), Sampling(0.7, top_p=0.95, repetition_penalty=1.2)]


@pytest.fixture(scope="module", params=native_engines()[-1:])
def backend(request: pytest.FixtureRequest) -> Backend:
    return request.param.load(random_model(replace(BASE, vocab_size=VOCAB), seed=9))


def enumerated(backend: Backend, option: Sampling) -> np.ndarray:
    """Probability of each triple: (5, 5, 5)."""
    from specee.sampling import penalised

    joint = np.zeros((VOCAB,) * TOKENS)
    for triple in product(range(VOCAB), repeat=TOKENS):
        chance = 1.0
        for done in range(TOKENS):
            text = [*PROMPT, *triple[:done]]
            state = backend.sequence(len(text))
            work = [(state, [state.append(text)[-1]])]
            backend.advance(work, BASE.num_layers)
            scores = penalised(backend.logits(work)[0], text, option.repetition_penalty)
            chance *= probabilities(scores, option)[triple[done]]
        joint[triple] = chance
    return joint


def drawn(
    backend: Backend, option: Sampling, policy: str, rule: Acceptance, heads: DraftHeads | None = None
) -> tuple[np.ndarray, int]:
    """How often each triple came out, and how many drafts were accepted."""
    counts, accepted = np.zeros((VOCAB,) * TOKENS), 0
    for begin in range(0, DRAWS, ROWS):
        requests = [
            Request(PROMPT, TOKENS, replace(option, seed=begin + i), acceptance=rule) for i in range(ROWS)
        ]
        generation = Generation(backend, reserve(backend, requests), make_policy(policy), heads)
        for _ in generation:
            pass
        accepted += generation.statistics.acceptance.accepted
        for sequence in generation.sequences.values():
            counts[tuple(sequence.generated)] += 1
    return counts, accepted


def too_far(counts: np.ndarray, joint: np.ndarray) -> float:
    """Chi-square over its 99.99 % quantile: over 1 in one right run of 10,000, and seeds are fixed.

    Cells that expect fewer than 5 are put together, rarest first, until each expects 5. The quantile is
    Wilson and Hilferty's, df (1 - 2 / (9 df) + 3.719 sqrt(2 / (9 df)))^3.
    """
    assert counts[joint == 0].sum() == 0, "a token that cannot be drawn was"
    wanted, found = joint[joint > 0] * counts.sum(), counts[joint > 0]
    cells: list[list[float]] = [[0.0, 0.0]]
    for cell in np.argsort(wanted):
        if cells[-1][0] >= 5:
            cells.append([0.0, 0.0])
        cells[-1] = [cells[-1][0] + wanted[cell], cells[-1][1] + found[cell]]
    if cells[-1][0] < 5:
        last = cells.pop()
        cells[-1] = [a + b for a, b in zip(cells[-1], last, strict=True)]
    freedom = 2 / (9 * (len(cells) - 1))
    quantile = (len(cells) - 1) * (1 - freedom + 3.719 * freedom**0.5) ** 3
    return sum((b - a) ** 2 / a for a, b in cells) / quantile


@pytest.mark.parametrize("rule", ["coupled", "rejection"])
@pytest.mark.parametrize("policy", POLICIES)
def test_three_tokens_are_distributed_as_the_full_models(
    backend: Backend, policy: str, rule: Acceptance
) -> None:
    for option in OPTIONS:
        counts, accepted = drawn(backend, option, policy, rule)
        assert accepted > 100, "the rule must have had something to accept"
        assert too_far(counts, enumerated(backend, option)) < 1


def test_layers_chosen_by_what_was_accepted_leave_the_distribution_as_it_is(backend: Backend) -> None:
    """DEL has drafts from the second token on; others that learn have none yet in so short a text."""
    counts, accepted = drawn(backend, OPTIONS[0], "del:faithful=true", "rejection")
    assert accepted > 100
    assert too_far(counts, enumerated(backend, OPTIONS[0])) < 1


@pytest.mark.parametrize(
    "policy", ["drafter-tree", pytest.param("specee-tree:layers=all,threshold=0.4", marks=pytest.mark.slow)]
)
def test_trees_of_the_block_leave_the_distribution_as_it_is(backend: Backend, policy: str) -> None:
    """Several drafts for one place, of which classical rejection judges one after the other."""
    parts = random_parts(BASE, (1, BASE.num_layers), np.random.default_rng(4))
    exits = random_exits(BASE, np.random.default_rng(5))
    heads = DraftHeads(backend, Speculator(drafter=parts, exits=exits))
    policy += ("," if ":" in policy else ":") + "measured=false,nodes=6,width=3,children=3"
    for rule in ("coupled", "rejection"):
        counts, accepted = drawn(backend, OPTIONS[1], policy, rule, heads)
        assert accepted > 100
        assert too_far(counts, enumerated(backend, OPTIONS[1])) < 1


def test_a_wrong_rule_fails(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing anew from the target after a rejection, instead of from what is left of it."""

    def forgetful(target, drafts, seed, position):  # type: ignore[no-untyped-def]
        token = acceptance.rejection_token(target, drafts, seed, position)
        kept = any(token == draft for draft, _ in drafts)
        return token if kept else acceptance.draw(target, seed, position, acceptance.RESIDUAL_STREAM)

    monkeypatch.setattr(verify, "rejection_token", forgetful)
    counts, _ = drawn(backend, OPTIONS[0], POLICIES[0], "rejection")
    assert too_far(counts, enumerated(backend, OPTIONS[0])) > 1


def test_a_coupled_rule_that_keeps_every_first_draft_fails(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_first_drafts(monkeypatch, backend)
    counts, _ = drawn(backend, OPTIONS[0], POLICIES[0], "coupled")
    assert too_far(counts, enumerated(backend, OPTIONS[0])) > 1


class Picky:
    """Drafts again only where the draft that was thrown away was confident: it looks at past noise."""

    name = "picky"

    def begin(self, model: ModelView) -> Needs:
        self._again: dict[int, bool] = {}
        return Needs((ExitLayer(1),))

    def plan(self, observation: Observation) -> Speculate:
        drafts = []
        for view in observation.sequences:
            length = min(2, view.remaining - 1) if self._again.get(view.id, True) else 0
            drafts.append(Draft(view.id, ExitLayer(1), length))
        return Speculate(tuple(drafts))

    def observe(self, outcome: Outcome) -> None:
        for entry in outcome.rounds:
            if entry.drafted == 2 and entry.accepted == 0:
                self._again[entry.sequence] = entry.confidences[1] >= 0.4


@pytest.mark.parametrize("engine", native_engines()[-1:])
def test_a_policy_that_learns_from_drafts_thrown_away_changes_nothing(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two drafts at once, from the prompt on. With noise that does not know its round, it fails."""
    model = random_model(replace(BASE, vocab_size=VOCAB), seed=37)
    model.weights["head", -1] *= 2  # so that confidences differ
    backend = engine.load(model)

    def triples() -> np.ndarray:
        counts = np.zeros((VOCAB,) * TOKENS)
        for begin in range(0, 2 * DRAWS, ROWS):
            options = [replace(OPTIONS[0], seed=begin + i) for i in range(ROWS)]
            requests = [Request(PROMPT, TOKENS, option, acceptance="rejection") for option in options]
            generation = Generation(backend, reserve(backend, requests), Picky())
            for _ in generation:
                pass
            for sequence in generation.sequences.values():
                counts[tuple(sequence.generated)] += 1
        return counts

    joint = enumerated(backend, OPTIONS[0])
    assert too_far(triples(), joint) < 1
    original = exit_layer.draw
    monkeypatch.setattr(exit_layer, "draw", lambda p, seed, position, _: original(p, seed, position, 3))
    assert too_far(triples(), joint) > 1


def test_drafts_of_an_adapted_head_leave_the_distribution_as_it_is(backend: Backend) -> None:
    """A head that knows three of five tokens: its drafts never are the others."""
    rng = np.random.default_rng(2)
    adapter = Adapter(
        np.ones(BASE.hidden_size, np.float32),
        rng.normal(0, 0.3, (4, BASE.hidden_size)).astype(np.float32),
        rng.normal(0, 0.3, (BASE.hidden_size, 4)).astype(np.float32),
    )
    heads = DraftHeads(backend, Speculator(np.array([0, 2, 3]), {1: adapter}))
    policy = "layerskip:exit_layer=1,speculation_length=2,adapted=true"
    for rule in ("coupled", "rejection"):
        counts, accepted = drawn(backend, OPTIONS[0], policy, rule, heads)
        assert accepted > 100
        assert too_far(counts, enumerated(backend, OPTIONS[0])) < 1
