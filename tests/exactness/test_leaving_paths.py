"""Approximate decoding by trees: paths leave as hyper-tokens, several tokens at once; caches stay exact."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from specee.backends.protocol import Backend
from specee.engine import Generation, Request
from specee.errors import ConfigurationError
from specee.policies import (
    Draft,
    Leave,
    LeaveEarly,
    ModelView,
    Needs,
    Observation,
    Outcome,
    PredictedTree,
    make_policy,
)
from specee.types import Sampling
from tests.engines import Engine, all_engines, native_engines
from tests.exactness.test_approximate import PROMPTS, fitted, small, started

LOW = "specee-tree:mode=approximate,threshold=0.0,layers=all"
SOME = "specee-tree:mode=approximate,threshold=0.37,layers=all,depth=2"


class Paths:
    """Trees with paths that leave wherever they can; any number of rows may wait."""

    name = "paths"

    def __init__(self, waiting: int, threshold: float = 0.0, depth: int = 3) -> None:
        self._waiting, self._threshold = waiting, threshold
        self._source = PredictedTree(depth, 3, 2, threshold)
        self.lengths: list[tuple[int, int]] = []  # of what was emitted at once, and the layer

    def begin(self, model: ModelView) -> Needs:
        assert model.exits is not None
        self._layers = model.exits.layers
        return Needs((self._source,))

    def plan(self, observation: Observation) -> LeaveEarly:
        leaves = []
        for view in observation.sequences:
            nodes = 0 if view.fresh else min(9, view.remaining - 1)
            tree = Draft(view.id, self._source, nodes, layers=self._layers)
            leaves.append(Leave(view.id, self._layers, self._threshold, self._waiting, tree))
        return LeaveEarly(tuple(leaves))

    def observe(self, outcome: Outcome) -> None:
        self.lengths += [(len(entry.tokens), entry.exits[0]) for entry in outcome.rounds]
        assert all(len(set(entry.exits)) == 1 for entry in outcome.rounds)


@pytest.mark.parametrize("kind", ["fp32", pytest.param("int8", marks=pytest.mark.slow)])
@pytest.mark.parametrize("engine", all_engines())
def test_caches_are_those_of_the_emitted_text(engine: Engine, kind: str) -> None:
    backend = small(engine, kind)
    last = backend.config.num_layers
    tokens = 9 if engine.backend == "reference" else 16
    for waiting in (0, 1, 3, 16):
        requests = [Request(prompt, tokens, Sampling()) for prompt in PROMPTS[:2]]
        sequences = started(backend, requests)
        policy, most = Paths(waiting), 0
        for _ in Generation(backend, sequences, policy, fitted(backend)):
            for one in sequences:
                if one.finish_reason is None:
                    assert [one.state.row(slot).token for slot in range(one.state.length)] == one.text
                    most = max(most, one.state.length - 1 - one.state.frontier[-1])
        early = [length for length, layer in policy.lengths if layer < last]
        assert bool(early) == bool(waiting)
        assert most <= waiting
        assert max(early, default=0) <= waiting
        assert waiting < 16 or max(early) > 1, "no path of several nodes left"
        for one in sequences:
            slots = range(one.state.length - 1)
            assert one.state.frontier == (len(slots),) * last
            straight = backend.sequence(one.state.capacity)
            straight.append(one.text[:-1])
            backend.advance([(straight, slots)], last)
            for layer in range(last):
                for mine, plain in zip(one.state.kv(layer, slots), straight.kv(layer, slots), strict=True):
                    assert np.array_equal(mine, plain)


def texts(
    backend: Backend, policy: str, prompts: Sequence[tuple[int, ...]], sampling: Sampling
) -> list[tuple[list[int], list[tuple[int, ...]]]]:
    requests = [Request(prompt, 8, sampling, frozenset({11})) for prompt in prompts]
    generation = Generation(backend, started(backend, requests), make_policy(policy), fitted(backend))
    list(generation)
    return [
        (one.generated, [entry.exits for entry in generation.statistics.rounds(one.id)])
        for one in generation.sequences.values()
    ]


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(0.8, top_k=5, seed=4, repetition_penalty=1.1)])
@pytest.mark.parametrize("engine", all_engines())
def test_a_tree_does_not_depend_on_its_neighbours(engine: Engine, sampling: Sampling) -> None:
    backend = small(engine)
    together = texts(backend, SOME, PROMPTS[:3], sampling)
    assert together == [texts(backend, SOME, [prompt], sampling)[0] for prompt in PROMPTS[:3]]
    assert len({exits for _, rounds in together for exits in rounds}) > 2


@pytest.mark.parametrize("engine", native_engines())
def test_both_backends_leave_alike(engine: Engine) -> None:
    ours, theirs = (texts(small(each), SOME, PROMPTS, Sampling()) for each in (engine, Engine("reference")))
    assert ours == theirs


def test_nothing_leaves_over_a_threshold_of_one_and_much_does_over_none() -> None:
    backend = small(Engine("reference"))
    plain, never, low = (
        texts(backend, policy, PROMPTS[:2], Sampling())
        for policy in ("autoregressive", LOW.replace("0.0", "1.0"), LOW)
    )
    assert [text for text, _ in never] == [text for text, _ in plain]
    assert [text for text, _ in low] != [text for text, _ in plain], "the control"


@pytest.mark.parametrize("engine", all_engines())
def test_paths_leave_with_the_latest_of_their_nodes(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers and the head's tokens are listened to, and every path is gone through by itself."""
    backend = small(engine)
    kind, states = type(backend), type(backend.sequence(4))
    original, sampled, branch = kind.ask_exits, kind.sample, states.branch
    grown: list[tuple[list[int], list[int], list[int]]] = []
    fired: dict[int, int] = {}  # slot -> layer, of nodes that are sure and not confirmed yet
    decided: dict[int, tuple[int, int]] = {}  # slot -> layer, token

    def watch(self, tokens, parents=None, root=None):  # type: ignore[no-untyped-def]
        slots = branch(self, tokens, parents, root)
        grown.append((list(tokens), list(parents), slots))
        return slots

    def listen(self, rows, layer, calls):  # type: ignore[no-untyped-def]
        answers = original(self, rows, layer, calls)
        slots = [slot for call in calls for slot in call.slots]
        assert not set(slots) & set(decided), "a node is asked about after it has decided"
        pairs = zip(slots, answers, strict=True)
        fired.update({slot: layer for slot, answer in pairs if answer.chance > 0.37})
        return answers

    def confirmed(self, work, sampling):  # type: ignore[no-untyped-def]
        tokens = sampled(self, work, sampling)
        slots = [slot for _, own in work for slot in own]
        for slot, token in zip(slots, tokens.tolist(), strict=True):
            if slot in fired:  # all sixteen tokens are candidates
                decided[slot] = fired.pop(slot), token
        return tokens

    monkeypatch.setattr(kind, "ask_exits", listen)
    monkeypatch.setattr(kind, "sample", confirmed)
    monkeypatch.setattr(states, "branch", watch)
    policy = Paths(16, 0.37, depth=2)
    sequences = started(backend, [Request(PROMPTS[0], 22)])
    left = 0
    for _ in Generation(backend, sequences, policy, fitted(backend)):
        if grown and decided:
            ((tokens, parents, slots),) = grown
            newest = slots[0] - 1  # no slot is free below the first of a tree
            outcomes = set()
            for node in [-1, *range(len(tokens))]:
                way = [node]
                while way[0] >= 0:
                    way.insert(0, parents[way[0]])
                own = [decided.get(newest if one < 0 else slots[one]) for one in way]
                known = [one for one in own if one is not None]
                ends = len(known) == len(own) and not any(
                    parent == node
                    and tokens[below] == known[-1][1]
                    and slots[below] in asked_of(decided, slots)
                    for below, parent in enumerate(parents)
                )
                if ends and all(a[1] == tokens[below] for a, below in zip(known, way[1:], strict=False)):
                    outcomes.add((len(way), max(layer for layer, _ in known)))
            length, layer = policy.lengths[-1]
            if layer < backend.config.num_layers:
                left += 1
                assert (length, layer) in outcomes
        grown.clear()
        fired.clear()
        decided.clear()
    assert left > 3


def asked_of(decided: dict[int, tuple[int, int]], slots: Sequence[int]) -> set[int]:
    return set(decided) & set(slots)


@pytest.mark.parametrize(
    ("leave", "tree", "words"),
    [
        (Leave(0, (1,), 0.5), Draft(0, PredictedTree(threshold=0.4), 3, layers=(1,)), "PredictedTree"),
        (Leave(0, (1,), 0.5), Draft(0, PredictedTree(), 3, layers=(1, 2)), "PredictedTree"),
        (Leave(0, (9,), 0.5), Draft(0, PredictedTree(), 3, layers=(9,)), "exit predictors"),
        (Leave(0, (1,), 0.5), Draft(0, PredictedTree(depth=0), 3, layers=(1,)), "depth"),
    ],
)
def test_plans_that_cannot_be_carried_out(leave: Leave, tree: Draft, words: str) -> None:
    class Fixed(Paths):
        def plan(self, observation: Observation) -> LeaveEarly:
            return LeaveEarly((leave._replace(tree=tree),))

    backend = small(Engine("reference"))
    sequences = started(backend, [Request((1, 2), 6)])
    with pytest.raises(ConfigurationError, match=words):
        list(Generation(backend, sequences, Fixed(3), fitted(backend)))
    assert sequences[0].generated == []
