"""Trees that predictors prune: what goes, what it costs, and that nothing of it shows in the text.

Predictors made for the purpose are sure of every node, or of none; the merged mapping is gone through path by
path beside.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from specee.backends.protocol import Answer, AskCall, Backend
from specee.drafting import DraftHeads
from specee.engine import Generation, Request
from specee.models.exit_parts import ExitParts
from specee.models.speculator import Speculator
from specee.policies import make_policy
from specee.types import Sampling
from tests.engines import Engine, all_engines
from tests.exactness.test_speculation import PLAIN, active, run
from tests.random_drafter import random_parts
from tests.random_exits import random_exits
from tests.random_model import CONFIGS, random_model

POLICY = "specee-tree:measured=false,layers=all,nodes=14,width=4,children=3,depth=4"
REQUESTS = [Request((1, 2, 3, 4), 9), Request((5, 6), 9, Sampling(1.0, seed=2))]


def sure(parts: ExitParts, chance: float) -> ExitParts:
    """Predictors that say the same of everything: a chance over, or under, a half."""
    bias = np.full_like(parts.second_bias, 9.0 if chance > 0.5 else -9.0)
    return replace(parts, second=np.zeros_like(parts.second), second_bias=bias)


def heads(backend: Backend, chance: float | None = None) -> DraftHeads:
    rng, config = np.random.default_rng(3), backend.config
    exits = random_exits(config, rng, candidates=4)
    drafter = random_parts(config, (1, config.num_layers), rng)
    return DraftHeads(
        backend, Speculator(None, {}, drafter, exits if chance is None else sure(exits, chance))
    )


def small(engine: Engine, kind: str = "fp32") -> Backend:
    """A vocabulary so small that drafts are right now and then; four of five layers have predictors."""
    config = replace(CONFIGS["llama"], vocab_size=8, num_layers=5, windows=(0,) * 5)
    model = random_model(config, seed=7, kind=kind)
    return engine.load(model, kind, threads=2)


@pytest.mark.parametrize("engine", all_engines())
def test_predictors_that_are_sure_of_all_or_of_none(engine: Engine) -> None:
    """The text is plain decoding's either way; all branches go at once but one, or none ever does."""
    backend = small(engine)
    plain = [run(backend, [request], make_policy(PLAIN))[0][0] for request in REQUESTS]
    counts = {}
    for chance in (0.0, 1.0):
        found, generation = run(backend, REQUESTS, make_policy(POLICY), (), heads(backend, chance))
        assert found == plain
        rounds = [entry for entry in generation.statistics.rounds() if entry.drafted or entry.pruned]
        assert len(rounds) > 6
        counts[chance] = Counter(layer for entry in rounds for layer, _ in entry.pruned)
        for entry in rounds:
            if chance == 0:
                assert not entry.pruned
                assert not entry.exits
            else:  # one path is left, or none of it
                assert entry.drafted <= 4
                assert all(layer == 1 for layer in entry.exits)
                assert entry.accepted == len(entry.path)
    assert counts[0.0] == Counter()
    assert counts[1.0].keys() == {1}, "everything is decided at the first layer that is checked"
    assert counts[1.0].total() > 30


@pytest.mark.parametrize("engine", all_engines()[:1])
def test_rows_that_are_pruned_cost_no_further_layer(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every (row, layer) that is computed is counted, beside what rounds say."""
    backend = small(engine)
    layers, passed = backend.config.num_layers, Counter[int]()
    original = type(backend)._layer  # type: ignore[attr-defined]

    def count(self, sequence, rows, layer):  # type: ignore[no-untyped-def]
        passed[layer + 1] += len(rows)
        return original(self, sequence, rows, layer)

    monkeypatch.setattr(type(backend), "_layer", count)
    policy = make_policy(POLICY + ",threshold=0.9")
    generation = Generation(backend, active(backend, [Request((1, 2, 3, 4), 12)]), policy, heads(backend))
    seen: Counter[int] = Counter()
    for step, _ in enumerate(generation):
        (entry,) = generation.statistics.steps[-1]
        if step:
            rows = 1 + entry.drafted + len(entry.pruned)
            gone = Counter(one.layer for one in entry.pruned)
            wanted = {at: rows - sum(gone[before] for before in range(1, at)) for at in range(1, layers + 1)}
            assert passed == Counter(wanted)
            seen += gone
        passed.clear()
    assert len(seen) > 1, "rows left at one layer alone"


@pytest.mark.parametrize("engine", all_engines())
def test_decisions_are_those_of_every_path_by_itself(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers are listened to, and trees pruned again by going through their paths one by one."""
    backend = small(engine)
    heard: list[tuple[int, list[tuple[AskCall, list[Answer]]]]] = []
    original = type(backend).ask_exits

    def listen(self, rows, layer, calls):  # type: ignore[no-untyped-def]
        answers = original(self, rows, layer, calls)
        rest = iter(answers)
        heard.append((layer, [(call, [next(rest) for _ in call.slots]) for call in calls]))
        return answers

    monkeypatch.setattr(type(backend), "ask_exits", listen)
    grown: list[tuple[list[int], list[int], list[int]]] = []
    branch = type(backend.sequence(4)).branch

    def watch(self, tokens, parents=None, root=None):  # type: ignore[no-untyped-def]
        slots = branch(self, tokens, parents, root)
        grown.append((list(tokens), list(parents), slots))
        return slots

    monkeypatch.setattr(type(backend.sequence(4)), "branch", watch)
    generation = Generation(
        backend, active(backend, [Request((1, 2, 3, 4), 14)]), make_policy(POLICY), heads(backend)
    )
    checked = 0
    for _ in generation:
        (entry,) = generation.statistics.steps[-1]
        if grown:
            ((tokens, parents, slots),) = grown
            ways = [way_to(parents, node) for node in range(len(tokens))]
            asked: set[int] = set()
            decided: dict[int, int] = {}
            gone: list[int] = []
            for layer, ((call, answers),) in heard:
                nodes = [slots.index(slot) if slot in slots else -1 for slot in call.slots]
                assert not set(nodes) & set(decided), "a node is asked about after it has decided"
                asked.update(nodes)
                decided |= {
                    node: one.token for node, one in zip(nodes, answers, strict=True) if one.chance > 0.5
                }
                left = [
                    node
                    for node, way in enumerate(ways)
                    if any(
                        above in decided and decided[above] != tokens[below]
                        for above, below in zip([-1, *way], way, strict=False)
                    )
                ]
                gone += [layer] * (len(left) - len(gone))
            assert asked <= {-1, *parents}, "nodes without branches have nothing to decide"
            assert sorted(one.layer for one in entry.pruned) == sorted(gone)
            assert entry.drafted == len(tokens) - len(gone)
            checked += bool(gone)
        grown.clear()
        heard.clear()
    assert checked > 3


def way_to(parents: Sequence[int], node: int) -> list[int]:
    """From below the root down to the node."""
    found = [node]
    while parents[found[0]] >= 0:
        found.insert(0, parents[found[0]])
    return found


def test_a_decision_that_is_turned_around_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control: keep what predictors rule out, and the right drafts of sure nodes are lost."""
    backend = small(Engine("reference"))
    request, own = Request((1, 2, 3, 4), 14), heads(backend, 1.0)
    _, generation = run(backend, [request], make_policy(POLICY), (), own)
    right = generation.statistics.acceptance.accepted
    original = type(backend).ask_exits

    def other(self, rows, layer, calls):  # type: ignore[no-untyped-def]
        return [Answer(one.chance, (one.token + 1) % 8) for one in original(self, rows, layer, calls)]

    monkeypatch.setattr(type(backend), "ask_exits", other)
    plain, _ = run(backend, [request], make_policy(PLAIN))
    found, generation = run(backend, [request], make_policy(POLICY), (), own)
    assert found == plain
    assert generation.statistics.acceptance.accepted != right
