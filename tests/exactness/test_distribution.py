"""The joint distribution of three sampled tokens, against exact enumeration, for both acceptance rules."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from specee import acceptance
from specee.acceptance import Acceptance, probabilities
from specee.backends.protocol import Backend
from specee.engine import Generation, Request, reserve, verify
from specee.policies import make_policy
from specee.types import Sampling
from tests.engines import native_engines
from tests.random_model import BASE, random_model

VOCAB, TOKENS, DRAWS, ROWS = 5, 3, 6_000, 50
PROMPT = (0, 3, 1, 2, 4, 1)  # every token, so that lookup finds the latest one
POLICIES = [
    "layerskip:exit_layer=1,speculation_length=2",
    "prompt-lookup:speculation_length=2,shortest_ngram=1",
    "threshold:exit_layer=2",
]
# 99.99 % quantile of chi-square with 5^3 - 1 = 124 degrees of freedom, by Wilson and Hilferty's formula
# 124 (1 - 2 / (9 * 124) + 3.719 sqrt(2 / (9 * 124)))^3. One in 10,000 right runs would exceed it, and seeds
# are fixed.
LIMIT = 191.7
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


def drawn(backend: Backend, option: Sampling, policy: str, rule: Acceptance) -> tuple[np.ndarray, int]:
    """How often each triple came out, and how many drafts were accepted."""
    counts, accepted = np.zeros((VOCAB,) * TOKENS), 0
    for begin in range(0, DRAWS, ROWS):
        requests = [
            Request(PROMPT, TOKENS, replace(option, seed=begin + i), acceptance=rule) for i in range(ROWS)
        ]
        generation = Generation(backend, reserve(backend, requests), make_policy(policy))
        for _ in generation:
            pass
        accepted += generation.statistics.acceptance.accepted
        for sequence in generation.sequences.values():
            counts[tuple(sequence.generated)] += 1
    return counts, accepted


def chi_square(counts: np.ndarray, joint: np.ndarray) -> float:
    """Over the triples that may occur, rare ones together so that each cell expects 5 or more."""
    assert counts[joint == 0].sum() == 0
    wanted, found = joint.reshape(-1) * counts.sum(), counts.reshape(-1)
    order = np.argsort(wanted)
    rare = order[np.cumsum(wanted[order]) < 5]
    rare = order[: len(rare) + 1] if len(rare) else rare
    common = np.setdiff1d(order, rare)
    wanted = np.append(wanted[common], wanted[rare].sum() or 1.0)
    found = np.append(found[common], found[rare].sum() if len(rare) else 1.0)
    return float(((found - wanted) ** 2 / wanted).sum())


@pytest.mark.parametrize("rule", ["coupled", "rejection"])
@pytest.mark.parametrize("policy", POLICIES)
def test_three_tokens_are_distributed_as_the_full_models(
    backend: Backend, policy: str, rule: Acceptance
) -> None:
    for option in OPTIONS:
        counts, accepted = drawn(backend, option, policy, rule)
        assert accepted > 100, "the rule must have had something to accept"
        assert chi_square(counts, enumerated(backend, option)) < LIMIT


def test_a_wrong_rule_fails(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing anew from the target after a rejection, instead of from what is left of it."""

    def forgetful(target, drafts, seed, position):  # type: ignore[no-untyped-def]
        token = acceptance.rejection_token(target, drafts, seed, position)
        kept = any(token == draft for draft, _ in drafts)
        return token if kept else acceptance._draw(target, seed, position)

    monkeypatch.setattr(verify, "rejection_token", forgetful)
    counts, _ = drawn(backend, OPTIONS[0], POLICIES[0], "rejection")
    assert chi_square(counts, enumerated(backend, OPTIONS[0])) > LIMIT


def test_a_coupled_rule_with_the_wrong_noise_fails(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keeping a draft also when the full model's token is another one, every other time."""
    original = verify._split

    def lenient(rows, pairs):  # type: ignore[no-untyped-def]
        return [[0 if token == 1 else token for token in own] for own in original(rows, pairs)]

    monkeypatch.setattr(verify, "_split", lenient)
    counts, _ = drawn(backend, OPTIONS[0], POLICIES[0], "coupled")
    assert chi_square(counts, enumerated(backend, OPTIONS[0])) > LIMIT
