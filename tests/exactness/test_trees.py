"""Large trees change nothing: tokens and caches of plain decoding, to the bit, for four sequences at once.

Adversarial random trees of up to 60 nodes, of which some are right, and trees of a drafter block that was
fitted to nothing and so branches everywhere. Slots not in use hold NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from specee.engine import Generation, Request
from specee.policies import (
    Draft,
    DrafterTree,
    ModelView,
    Needs,
    Observation,
    Outcome,
    PredictedTree,
    Speculate,
    make_policy,
)
from specee.types import Sampling
from tests.chaos import Grown
from tests.engines import Engine, all_engines
from tests.exactness.test_speculation import PLAIN, fitted, run
from tests.random_model import CONFIGS, random_model

NODES = 60
KINDS = [("llama", "fp32"), ("qwen3", "fp32"), ("llama", "bf16"), ("aligned", "mixed")]
# Pruned trees of all kinds of weights in the full run; one kind at every change.
CASES: list[Any] = [(*kind, tree) for kind in KINDS for tree in ("grown", "block")]
CASES += [(*KINDS[0], "pruned")]
CASES += [pytest.param(*kind, "pruned", marks=pytest.mark.slow) for kind in KINDS[1:]]
OPTIONS = [Sampling(), Sampling(0.9, seed=6, repetition_penalty=1.1), Sampling(1.0, top_k=9, seed=4)]


class Trees:
    """Trees of up to ``NODES`` nodes for every sequence: grown at random, or by the block, pruned or not."""

    name = "trees"

    def __init__(self, seed: int, *, block: bool, pruned: bool = False) -> None:
        self._seed, self._block, self._pruned = seed, block, pruned

    def begin(self, model: ModelView) -> Needs:
        self._rng = np.random.default_rng(self._seed)
        self._known = () if model.exits is None else model.exits.layers
        return Needs((PredictedTree() if self._pruned else DrafterTree(),) if self._block else ())

    def plan(self, observation: Observation) -> Speculate:
        rng, drafts = self._rng, []
        for view in observation.sequences:
            nodes = int(rng.integers(1, NODES + 1)) if rng.random() < 0.7 else NODES
            source: object = Grown(int(rng.integers(2**31)))
            layers: tuple[int, ...] = ()
            if self._block:
                limits = rng.integers(1, 9, 3).tolist()
                source = DrafterTree(*limits)
                if self._pruned:
                    source = PredictedTree(*limits, threshold=float(rng.choice([0.0, 0.4, 0.8])))
                    layers = tuple([layer for layer in self._known if rng.random() < 0.7])
            drafts.append(Draft(view.id, source, min(nodes, view.remaining - 1), layers=layers))  # type: ignore[arg-type]
        return Speculate(tuple(drafts))

    def observe(self, outcome: Outcome) -> None:
        """Nothing to learn."""


def requests(rng: np.random.Generator, vocab: int) -> list[Request]:
    """Four, of which two sample."""
    made = []
    for index in range(4):
        prompt = tuple(rng.integers(vocab, size=int(rng.integers(1, 20))).tolist())
        made.append(Request(prompt, int(rng.integers(70, 90)), OPTIONS[index % len(OPTIONS)]))
    return made


def most_drafted(generation: Generation) -> int:
    return max(entry.drafted for entry in generation.statistics.rounds())


@pytest.mark.parametrize(("name", "kind", "kind_of_tree"), CASES)
@pytest.mark.parametrize("engine", all_engines())
def test_large_trees_give_what_plain_decoding_gives(
    engine: Engine, name: str, kind: str, kind_of_tree: str
) -> None:
    block, pruned = kind_of_tree != "grown", kind_of_tree == "pruned"
    seed = int(np.random.default_rng().integers(2**31))
    print("seed", seed)
    rng = np.random.default_rng(seed)
    backend = engine.load(random_model(CONFIGS[name], seed=7, kind=kind), kind, threads=2)
    heads = fitted(backend)
    made = requests(rng, CONFIGS[name].vocab_size)
    if engine.backend == "reference":
        made = [Request(one.prompt, 24, one.sampling) for one in made[:2]]
    plain = [run(backend, [request], make_policy(PLAIN))[0][0] for request in made]
    answers = [one.tokens for one in plain]
    found, generation = run(backend, made, Trees(seed, block=block, pruned=pruned), answers, heads)
    assert found == plain
    counts = generation.statistics.acceptance
    assert counts.accepted < counts.drafted
    assert any(entry.pruned for entry in generation.statistics.rounds()) is pruned
    assert counts.accepted > 0 or block, "a random block is right by chance alone"
    if engine.backend != "reference" and not pruned:
        assert most_drafted(generation) >= NODES // 2
    for one, result in list(zip(made, found, strict=True))[:1]:
        alone, _ = run(backend, [one], Trees(seed + 1, block=block, pruned=pruned), [result.tokens], heads)
        assert alone == [result], "alone"


def test_a_tree_that_is_not_followed_by_the_targets_tokens_is_noticed() -> None:
    """The negative control: a row in the wrong branch gives other caches."""
    backend = Engine("reference").load(random_model(CONFIGS["llama"], seed=7))
    (plain,), _ = run(backend, [Request((1, 2, 3), 12)], make_policy(PLAIN))
    state = backend.sequence(20, poison=True)
    slots = [*state.append([1, 2, 3])]
    wrong, right = state.branch([plain.tokens[0] + 1, plain.tokens[0]], [-1, -1])
    (below,) = state.branch([plain.tokens[1]], None, wrong)
    backend.advance([(state, [*slots, right, below])], backend.config.num_layers)
    state.commit([wrong, below])
    assert cache_of(state, range(5), backend.config.num_layers) != cache_of(
        plain_state(backend, [1, 2, 3, *plain.tokens[:2]]), range(5), backend.config.num_layers
    )
    state = backend.sequence(20, poison=True)
    slots = [*state.append([1, 2, 3])]
    wrong, right = state.branch([plain.tokens[0] + 1, plain.tokens[0]], [-1, -1])
    (below,) = state.branch([plain.tokens[1]], None, right)
    backend.advance([(state, [*slots, wrong, below])], backend.config.num_layers)
    state.commit([right, below])
    assert cache_of(state, range(5), backend.config.num_layers) == cache_of(
        plain_state(backend, [1, 2, 3, *plain.tokens[:2]]), range(5), backend.config.num_layers
    )


def plain_state(backend, tokens: Sequence[int]):  # type: ignore[no-untyped-def]
    state = backend.sequence(20)
    backend.advance([(state, [*state.append(tokens)])], backend.config.num_layers)
    return state


def cache_of(state, slots: Sequence[int], layers: int) -> bytes:  # type: ignore[no-untyped-def]
    return b"".join(part.tobytes() for layer in range(layers) for part in state.kv(layer, slots))
