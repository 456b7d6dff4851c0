"""Speculation changes nothing: any policy, however mad, gives the tokens and the cache of plain decoding.

Tiny models of every family, every backend and instruction set, several sequences with ends and options of
their own, greedy, seeded and processed. Slots not in use hold NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specee.acceptance import Walk
from specee.backends.protocol import Backend
from specee.drafting import DraftHeads
from specee.engine import ActiveSequence, Generation, Request, executor
from specee.engine.latency import LatencyMeter
from specee.models.speculator import Adapter, Speculator
from specee.policies import Policy, make_policy
from specee.types import Sampling
from tests.chaos import Chaos, Grower, Grown
from tests.engines import Engine, all_engines
from tests.exactness.credulous import keep_first_drafts
from tests.random_drafter import random_parts
from tests.random_exits import random_exits
from tests.random_model import CONFIGS, random_model

MODELS = [(name, "fp32") for name in CONFIGS] + [("llama", "bf16"), ("aligned", "mixed"), ("aligned", "int8")]
POLICIES = [
    "layerskip:exit_layer=1",
    "layerskip-adaptive:exit_layer=2",
    "threshold:exit_layer=2,threshold=0.1",
]
POLICIES += ["prompt-lookup:shortest_ngram=1", "layerskip:exit_layer=2,speculation_length=0"]
POLICIES += ["drafter", "drafter:threshold=0.0,speculation_length=5", "del", "del:faithful=true", "auto"]
POLICIES += ["specee", "specee:layers=all,threshold=0.0,speculation_length=4"]
POLICIES += ["drafter-tree", "drafter-tree:measured=false,nodes=9,width=3,children=3"]
PRUNED = "specee-tree:measured=false,nodes=5,width=2,children=3,layers=all,threshold=0.3"
BRIEFLY = [("llama", "fp32"), ("qwen3", "fp32"), ("aligned", "mixed")]
"""Models that meet pruned trees at every change; all of them do in the full run."""
PLAIN = "autoregressive"


def forbid_repeats(text: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """A processor of the user: the last token may not come again."""
    scores = scores.copy()
    scores[text[-1]] = -np.inf
    return scores


def ends_on_three_in_a_row(tokens: Sequence[int]) -> bool:
    """A stop check of the user: three rising ids."""
    return len(tokens) > 2 and tokens[-3] < tokens[-2] < tokens[-1]


SAMPLINGS = [
    Sampling(),
    Sampling(1.0, seed=3),
    Sampling(0.7, top_k=5, seed=4),
    Sampling(1.3, top_p=0.8, min_p=0.05, seed=5),
    Sampling(0.0, repetition_penalty=1.3),
    Sampling(0.9, seed=6, repetition_penalty=1.1),
]


@st.composite
def requests(draw: st.DrawFn, vocab: int) -> list[Request]:
    made = []
    for _ in range(draw(st.integers(1, 3))):
        prompt = draw(
            st.lists(st.integers(0, 12), min_size=1, max_size=9)
        )  # few ids, so that lookup finds some
        made.append(
            Request(
                tuple(prompt),
                draw(st.integers(1, 14)),
                draw(st.sampled_from(SAMPLINGS)),
                frozenset(draw(st.lists(st.integers(0, vocab - 1), max_size=vocab // 8))),
                (forbid_repeats,) if draw(st.integers(0, 3)) == 0 else (),
                (ends_on_three_in_a_row,) if draw(st.integers(0, 3)) == 0 else (),
            )
        )
    return made


@dataclass(frozen=True)
class Result:
    """What may not depend on the policy. ``cache`` has keys and values of all layers but those of the last
    row.
    """

    tokens: list[int]
    reason: str | None
    cache: bytes


def active(backend: Backend, made: Sequence[Request]) -> list[ActiveSequence]:
    sequences = []
    for index, request in enumerate(made):
        state = backend.sequence(request.capacity, poison=True)
        state.append(request.prompt)
        sequences.append(ActiveSequence(index, request, state))
    return sequences


def fitted(backend: Backend) -> DraftHeads:
    """What a speculator gives, fitted to nothing: an adapter, a third of the vocabulary, a drafter block."""
    rng = np.random.default_rng(12)
    hidden, width = backend.config.hidden_size, 6
    adapter = Adapter(
        rng.uniform(0.5, 1.5, hidden).astype(np.float32),
        rng.normal(0, 0.2, (width, hidden)).astype(np.float32),
        rng.normal(0, 0.2, (hidden, width)).astype(np.float32),
    )
    vocabulary = rng.permutation(backend.config.vocab_size)[: backend.config.vocab_size // 3]
    parts = random_parts(backend.config, (1, backend.config.num_layers), rng)
    exits = random_exits(backend.config, rng, candidates=min(3, len(vocabulary)))
    return DraftHeads(backend, Speculator(vocabulary, {1: adapter}, parts, exits))


def run(
    backend: Backend,
    made: Sequence[Request],
    policy: Policy,
    answers: Sequence[Sequence[int]] = (),
    heads: DraftHeads | None = None,
    latency: LatencyMeter | None = None,
) -> tuple[list[Result], Generation]:
    lengths = {index: len(request.prompt) for index, request in enumerate(made)}
    grower = Grower(dict(enumerate(answers)), lengths, backend.config.vocab_size)
    drafters, sequences = {Grown: grower}, active(backend, made)
    generation = Generation(backend, sequences, policy, heads, drafters, latency, burst=60.0)
    for step in generation:
        for index, sequence in generation.sequences.items():
            rows = [sequence.state.row(slot).token for slot in range(sequence.state.length)]
            assert rows == [*made[index].prompt, *sequence.generated] == sequence.text
            assert sequence.state.speculative == ()
            assert step.get(index, ()) == tuple(
                sequence.generated[len(sequence.generated) - len(step.get(index, ())) :]
            )
    return [result(backend, sequence) for sequence in generation.sequences.values()], generation


def result(backend: Backend, sequence: ActiveSequence) -> Result:
    state = sequence.state
    slots = range(state.length - 1)
    backend.advance([(state, list(slots)[-1:])], backend.config.num_layers)
    cache = [part.tobytes() for layer in range(backend.config.num_layers) for part in state.kv(layer, slots)]
    return Result(sequence.generated, sequence.finish_reason, b"".join(cache))


@pytest.mark.parametrize(("name", "kind"), MODELS)
@pytest.mark.parametrize("engine", all_engines())
def test_any_policy_gives_what_plain_decoding_gives(engine: Engine, name: str, kind: str) -> None:
    policies = [*POLICIES, PRUNED] if (name, kind) in BRIEFLY else POLICIES
    compare_policies(engine, name, kind, policies)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kind"), MODELS)
@pytest.mark.parametrize("engine", all_engines())
def test_pruned_trees_give_what_plain_decoding_gives(engine: Engine, name: str, kind: str) -> None:
    larger = "specee-tree:measured=false,nodes=16,width=4,children=4"
    compare_policies(engine, name, kind, [PRUNED, larger, "specee-tree", "auto"])


def compare_policies(engine: Engine, name: str, kind: str, policies: Sequence[str]) -> None:
    backend = engine.load(random_model(CONFIGS[name], seed=7, kind=kind), kind, threads=2)
    heads, latency = fitted(backend), LatencyMeter(backend, budget_s=0.02)

    @settings(max_examples=2 if engine.backend == "reference" else 6)
    @given(made=requests(CONFIGS[name].vocab_size), seed=st.integers(0, 2**32 - 1))
    def compare(made: list[Request], seed: int) -> None:
        plain = [run(backend, [request], make_policy(PLAIN))[0][0] for request in made]
        answers = [one.tokens for one in plain]
        chaos = Chaos(seed, grown=True, adapted=True)
        assert run(backend, made, chaos, answers, heads)[0] == plain
        for policy in policies:
            found, _ = run(backend, made, make_policy(policy), (), heads, latency)
            assert found == plain, policy

    compare()


@pytest.mark.parametrize("name", ["llama", "qwen3"])
@pytest.mark.parametrize("engine", all_engines())
def test_rejection_keeps_every_promise_but_the_tokens(engine: Engine, name: str) -> None:
    """Rows are the text, ends are where they should be, a seed gives one text, and greedy is plain."""
    backend = engine.load(random_model(CONFIGS[name], seed=7), threads=2)
    heads = fitted(backend)

    @settings(max_examples=12)
    @given(made=requests(CONFIGS[name].vocab_size), seed=st.integers(0, 2**32 - 1))
    def check(made: list[Request], seed: int) -> None:
        made = [replace(request, acceptance="rejection") for request in made]
        found, _ = run(backend, made, Chaos(seed, grown=False, adapted=True), (), heads)
        assert run(backend, made, Chaos(seed, grown=False, adapted=True), (), heads)[0] == found
        for request, one in zip(made, found, strict=True):
            assert [token in request.eos for token in one.tokens[:-1]] == [False] * (len(one.tokens) - 1)
            stopped = any(stop(one.tokens) for stop in request.stops)
            ended = "eos" if one.tokens[-1] in request.eos else "stop" if stopped else "length"
            assert one.reason == ended
            assert len(one.tokens) == request.max_new_tokens or ended != "length"
            if request.processors:
                text = [*request.prompt[-1:], *one.tokens]
                assert all(a != b for a, b in pairwise(text))
            if request.sampling.temperature == 0:
                assert run(backend, [replace(request, acceptance="coupled")], make_policy(PLAIN))[0] == [one]

    check()


def test_drafts_are_accepted_and_refused_on_the_way() -> None:
    """The property would hold if nothing were ever drafted: here each source has drafts kept and dropped."""
    few = replace(CONFIGS["llama"], vocab_size=8)  # so that lookup finds something, and is right at times
    backend = Engine("reference").load(random_model(few, seed=7))
    made = [Request(tuple(range(8)), 40, replace(option, seed=1)) for option in SAMPLINGS[:2]]
    plain = [run(backend, [request], make_policy(PLAIN))[0][0] for request in made]
    every = {
        "DrafterBlock",
        "DrafterTree",
        "PredictedExit",
        "PredictedTree",
        "ExitLayer",
        "NgramLookup",
        "Grown",
    }
    totals: dict[str, list[int]] = {}
    for seed in range(30):
        answers = [one.tokens for one in plain]
        found, generation = run(backend, made, Chaos(seed, grown=True), answers, fitted(backend))
        assert found == plain
        for source, counts in generation.statistics.by_source.items():
            total = totals.setdefault(type(source).__name__, [0, 0])
            total[0] += counts.drafted
            total[1] += counts.accepted
        assert len(generation.statistics.steps) < sum(len(one.tokens) for one in plain)
        if totals.keys() == every and all(drafted > accepted > 0 for drafted, accepted in totals.values()):
            return
    raise AssertionError(f"drafted and accepted of {every}: {totals}")


def test_no_layer_is_computed_twice_for_a_row_that_is_kept() -> None:
    """Counted by an observer of every advance: (row, layer) pairs, over the whole generation."""
    backend = Engine("reference").load(random_model(CONFIGS["llama"], seed=7))
    layers, counted = backend.config.num_layers, []
    original = type(backend)._layer

    def count(self, sequence, rows, layer):  # type: ignore[no-untyped-def]
        counted.extend((row, layer) for row in rows)
        return original(self, sequence, rows, layer)

    type(backend)._layer = count  # type: ignore[method-assign]
    try:
        sequences = active(backend, [Request((1, 2, 3), 12, Sampling(1.0, seed=3))])
        generation = Generation(
            backend, sequences, make_policy("layerskip:exit_layer=2,speculation_length=3")
        )
        list(generation)
    finally:
        type(backend)._layer = original  # type: ignore[method-assign]
    assert generation.statistics.acceptance.accepted > 0
    assert len(counted) == len(set(counted)), "a row went through a layer twice"
    kept = set(sequences[0].state._committed[:-1])
    assert {pair for pair in counted if pair[0] in kept} == {
        (row, layer) for row in kept for layer in range(layers)
    }


@pytest.mark.parametrize("watched", [False, True])
def test_a_rule_that_keeps_too_much_is_noticed(monkeypatch: pytest.MonkeyPatch, watched: bool) -> None:
    """Accept whatever was drafted first, instead of what the full model says."""

    def credulous(tree, target, ended):  # type: ignore[no-untyped-def]
        children = tree.children(0)
        if not children:
            token = target(0)
            return Walk((token,), (), ended([token]))
        tokens = [tree.tokens[children[0]]]
        tokens.append(target(children[0]))
        return Walk(tuple(tokens), (children[0],), ended(tokens))

    backend = Engine("reference").load(random_model(CONFIGS["llama"], seed=7))
    stops = (lambda tokens: False,) if watched else ()
    made = [Request((1, 2, 3, 1, 2), 12, stops=stops)]
    plain, _ = run(backend, made, make_policy(PLAIN))
    policy = "layerskip:exit_layer=1"
    assert run(backend, made, make_policy(policy))[0] == plain
    if watched:
        monkeypatch.setattr(executor, "walk", credulous)
    else:
        keep_first_drafts(monkeypatch, backend)
    assert run(backend, made, make_policy(policy))[0] != plain
