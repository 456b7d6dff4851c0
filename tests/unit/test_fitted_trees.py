"""Trees of the drafter block: both backends alike, every path like a chain, connected and within limits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specee import sampling as plain
from specee.backends.protocol import (
    Backend,
    ChainCall,
    DraftedTree,
    DraftFormat,
    FittedColumn,
    FittedDrafter,
    SequenceState,
    TreeCall,
)
from specee.errors import RowError
from specee.types import Sampling
from tests.engines import Engine, all_engines
from tests.random_drafter import random_parts
from tests.random_model import BASE, random_model
from tests.unit.test_fitted_drafter import LAYERS, begun, go_on, text

GREEDY = Sampling()
DRAWN = Sampling(0.8, seed=5, repetition_penalty=1.2)


@pytest.fixture
def rng() -> np.random.Generator:
    seed = int(np.random.default_rng().integers(2**32))
    print("seed", seed)
    return np.random.default_rng(seed)


@pytest.fixture
def drafter(engine: Backend, rng: np.random.Generator) -> FittedDrafter:
    return engine.drafter(random_parts(BASE, LAYERS, rng))


def call(
    drafter: FittedDrafter,
    sequence: SequenceState,
    column: FittedColumn | None = None,
    *,
    nodes: int = 20,
    depth: int = 4,
    width: int = 5,
    children: int = 3,
    stop_below: float = 0.0,
    deepen_from: float = 0.0,
    sampling: Sampling = GREEDY,
) -> TreeCall:
    if column is None:
        column = drafter.column(sequence.capacity, "fp32", poison=True)
    limits = nodes, depth, width, children, stop_below, deepen_from
    return TreeCall(sequence, column, *limits, sampling)


def paths(tree: DraftedTree) -> dict[tuple[int, ...], np.float32]:
    """Tokens from the root down to each node, and the node's chance."""
    found: list[tuple[int, ...]] = []
    for token, parent in zip(tree.tokens, tree.parents, strict=True):
        found.append((*(found[parent] if parent >= 0 else ()), token))
    return dict(zip(found, np.array(tree.chances, np.float32), strict=True))


Known = dict[tuple[int, ...], np.float32]


def with_their_siblings(ours: Known, theirs: Known) -> list[tuple[int, ...]]:
    """Paths in both trees all of whose nodes have the same siblings there."""
    families: list[dict[tuple[int, ...], set[int]]] = []
    for known in (ours, theirs):
        families.append({})
        for path in known:
            families[-1].setdefault(path[:-1], set()).add(path[-1])
    mine, others = families
    above = {path: [path[:depth] for depth in range(len(path))] for path in ours.keys() & theirs.keys()}
    return [path for path, nodes in above.items() if all(mine[node] == others[node] for node in nodes)]


def check_sound(tree: DraftedTree, made: TreeCall) -> None:
    """Connected, within its limits, likeliest first, no siblings alike."""
    assert 1 <= len(tree.tokens) == len(tree.parents) == len(tree.chances) <= made.nodes
    assert all(-1 <= parent < index for index, parent in enumerate(tree.parents))
    known = paths(tree)
    assert len(known) == len(tree.tokens), "two siblings have the same token"
    assert all(0 <= chance <= 1 for chance in tree.chances)
    assert tree.chances == sorted(tree.chances, reverse=True)
    assert all(chance >= made.stop_below for chance in tree.chances[1:])
    depths = [len(path) for path in known]
    assert max(depths) <= made.depth
    parents = set(tree.parents)
    assert all(tree.parents.count(parent) <= made.children for parent in parents)
    inner = [len(path) for index, path in enumerate(known) if index in parents]
    assert all(inner.count(depth) <= made.width for depth in inner)


@pytest.mark.parametrize(("kind", "stored"), [("fp32", "Q8_0"), ("bf16", "Q4_1"), ("int8", "Q4_1")])
@pytest.mark.parametrize("native", all_engines()[1:])
def test_backends_grow_alike(
    native: Engine, kind: str, stored: DraftFormat, rng: np.random.Generator
) -> None:
    """The tolerances are those of chains, once for each draft on a path: see there."""
    parts = random_parts(BASE, LAYERS, rng)
    model = random_model(BASE, seed=int(rng.integers(2**31)), kind=kind)
    backends = [Engine("reference").load(model, kind), native.load(model, kind, threads=2)]
    vocabulary = np.sort(rng.permutation(BASE.vocab_size)[: BASE.vocab_size // 2])
    made = [backend.drafter(parts, stored) for backend in backends]
    heads = [backend.draft_head(None, vocabulary, stored) for backend in backends]
    apart, shared, whole = [], 0, 0
    for length in (2, 3, 17, 70):
        tokens = text(rng, length)
        sequences = [begun(backend, tokens) for backend in backends]
        for sampling in (
            GREEDY,
            DRAWN,
            Sampling(1.0, top_k=6, seed=3),
            Sampling(0.0, repetition_penalty=1.4),
        ):
            known = []
            for backend, one, sequence, head in zip(backends, made, sequences, heads, strict=True):
                # All children of all nodes: near-ties change which nodes are kept, not what they are.
                wanted = call(one, sequence, nodes=39, depth=3, width=9, children=3, sampling=sampling)
                (tree,) = backend.draft_trees(one, [wanted], head)
                check_sound(tree, wanted)
                assert len(tree.tokens) == 39
                known.append(paths(tree))
            ours, theirs = known
            shared, whole = shared + len(ours.keys() & theirs.keys()), whole + len(ours)
            # Scores share out what siblings have together. Noise ranks tokens high that have next to nothing:
            # where two scores are nearly tied, the others' chances depend on which of the two is kept.
            same = with_their_siblings(ours, theirs)
            apart += [abs(np.log(ours[path] / theirs[path])) / len(path) for path in same if ours[path] > 0]
    assert shared > 0.8 * whole, "all but near-ties"
    assert len(apart) > 0.7 * whole
    assert len(apart) > 0.7 * whole
    assert np.median(apart) < 0.02
    # What three siblings have together is shared out by scores: each of them may be off by as much.
    assert max(apart) < 0.4


@pytest.mark.parametrize("sampling", [GREEDY, DRAWN, Sampling(1.0, top_p=0.7, seed=2)])
def test_one_child_a_node_is_the_chain(
    engine: Backend, drafter: FittedDrafter, rng: np.random.Generator, sampling: Sampling
) -> None:
    sequence = begun(engine, text(rng, 12))
    column = drafter.column(sequence.capacity, "fp32", poison=True)
    chain = engine.draft_chains(drafter, [ChainCall(sequence, column, 6, 0.0, sampling)])[0]
    tree = engine.draft_trees(
        drafter, [call(drafter, sequence, column, nodes=6, depth=6, width=1, children=1, sampling=sampling)]
    )[0]
    assert tree.tokens == chain[0]
    assert tree.parents == [-1, 0, 1, 2, 3, 4]
    assert tree.chances == np.cumprod(np.array(chain[1], np.float32), dtype=np.float32).tolist()


def test_every_path_is_what_a_chain_along_it_gives(
    engine: Backend, drafter: FittedDrafter, rng: np.random.Generator
) -> None:
    """To the bit: chains drawn of the four likeliest tokens run through the tree of all of these."""
    sequence = begun(engine, text(rng, int(rng.integers(5, 40))))
    column = drafter.column(sequence.capacity + 100, "fp16", poison=True)
    wanted = call(drafter, sequence, column, nodes=84, depth=3, width=16, children=4)
    known = paths(engine.draft_trees(drafter, [wanted])[0])
    assert len(known) == 4 + 16 + 64
    seen = set()
    for seed in range(40):
        sampling = Sampling(2.0, top_k=4, seed=seed)
        tokens, sure = engine.draft_chains(drafter, [ChainCall(sequence, column, 3, 0.0, sampling)])[0]
        chances = np.cumprod(np.array(sure, np.float32), dtype=np.float32)
        for depth in (1, 2, 3):
            assert known[tuple(tokens[:depth])] == chances[depth - 1]
        seen.add(tuple(tokens))
    assert len(seen) > 10, "nearly all went different ways"


def test_the_best_of_all_are_kept(engine: Backend, drafter: FittedDrafter, rng: np.random.Generator) -> None:
    """A budget prunes the tree of everything, and so does a bound."""
    sequence = begun(engine, text(rng, 9), room=100)
    for sampling in (GREEDY, DRAWN):
        everything = call(drafter, sequence, nodes=39, depth=3, width=9, sampling=sampling)
        (whole,) = engine.draft_trees(drafter, [everything])
        assert len(whole.tokens) == 39
        ranked = sorted(paths(whole).values(), reverse=True)
        for nodes in (1, 2, 7, 20, 38):
            wanted = everything._replace(nodes=nodes)
            (tree,) = engine.draft_trees(drafter, [wanted])
            check_sound(tree, wanted)
            assert tree.chances == ranked[:nodes]
            assert paths(tree).items() <= paths(whole).items()
            bound = float(ranked[nodes - 1])
            (bounded,) = engine.draft_trees(drafter, [everything._replace(stop_below=bound)])
            assert bounded == tree


def test_a_tree_goes_no_deeper_than_it_is_worth(
    engine: Backend, drafter: FittedDrafter, rng: np.random.Generator
) -> None:
    sequence = begun(engine, text(rng, 9), room=100)
    wanted = call(drafter, sequence, nodes=30, depth=4, width=2)
    (whole,) = engine.draft_trees(drafter, [wanted])
    first = [chance for path, chance in paths(whole).items() if len(path) == 1]
    together = np.float32(first[0]) + np.float32(first[1])
    (deeper,) = engine.draft_trees(drafter, [wanted._replace(deepen_from=float(together))])
    assert max(map(len, paths(deeper))) > 1
    above = float(np.nextafter(together, np.float32(2)))
    (flat,) = engine.draft_trees(drafter, [wanted._replace(deepen_from=above)])
    assert flat.parents == [-1, -1, -1]
    assert paths(flat).items() <= paths(whole).items()


def test_the_likeliest_draft_is_always_there(
    engine: Backend, drafter: FittedDrafter, rng: np.random.Generator
) -> None:
    sequence = begun(engine, text(rng, 9))
    tokens, sure = engine.draft_chains(
        drafter, [ChainCall(sequence, drafter.column(49, "fp32"), 1, 0.0, GREEDY)]
    )[0]
    (tree,) = engine.draft_trees(drafter, [call(drafter, sequence, stop_below=1.1)])
    assert tree == DraftedTree(tokens, [-1], sure, [])


@settings(max_examples=10, deadline=None)
@given(data=st.data())
@pytest.mark.parametrize("kind", all_engines())
def test_any_limits_in_any_batch(kind: Engine, data: st.DataObject) -> None:
    """Trees are sound, do not depend on those beside, and leave columns that draft like new ones."""
    seed = data.draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    backend = kind.load(random_model(BASE, seed=seed), threads=2)
    drafter = backend.drafter(random_parts(BASE, LAYERS, rng))
    size = st.integers(1, 12)
    calls = []
    for _ in range(data.draw(st.integers(1, 3))):
        # Little room, so that some trees are cut short by it.
        sequence = begun(backend, text(rng, int(rng.integers(2, 30))), room=data.draw(st.integers(1, 40)))
        calls.append(
            call(
                drafter,
                sequence,
                nodes=data.draw(st.integers(1, 60)),
                depth=data.draw(size),
                width=data.draw(size),
                children=data.draw(size),
                stop_below=data.draw(st.sampled_from([0.0, 0.001, 0.05])),
                deepen_from=data.draw(st.sampled_from([0.0, 0.01, 0.3])),
                sampling=data.draw(st.sampled_from([GREEDY, DRAWN, Sampling(1.0, top_k=2, seed=1)])),
            )
        )
    together = backend.draft_trees(drafter, calls)
    for one, tree in zip(calls, together, strict=True):
        check_sound(tree, one)
        fresh = one._replace(column=drafter.column(one.sequence.capacity, "fp32"))
        assert backend.draft_trees(drafter, [fresh]) == [tree]
        assert (one.column.first, one.column.length) == (1, one.sequence.length - 1)
        assert one.sequence.speculative == ()
        if one.sequence.capacity > one.sequence.length:
            follow = one._replace(nodes=5)
            go_on(backend, one.sequence, tree.tokens[:1])
            again = follow._replace(column=drafter.column(one.sequence.capacity, "fp32"))
            assert backend.draft_trees(drafter, [follow]) == backend.draft_trees(drafter, [again])


def test_trees_depend_on_what_they_should(
    engine: Backend, drafter: FittedDrafter, rng: np.random.Generator
) -> None:
    """The negative control: other tokens before, another penalty, other noise."""
    tokens = text(rng, 12) + list(range(0, BASE.vocab_size, 2))  # half of all would be penalised

    def grown(of: Sequence[int], sampling: Sampling = GREEDY) -> DraftedTree:
        return engine.draft_trees(drafter, [call(drafter, begun(engine, of), sampling=sampling)])[0]

    before = grown(tokens)
    for position in (0, 5, 11):
        other = list(tokens)
        other[position] = (other[position] + 1) % BASE.vocab_size
        assert grown(other) != before
    assert grown(tokens, Sampling(0.0, repetition_penalty=2.0)) != before
    assert grown(tokens, DRAWN) != before
    assert grown(tokens, DRAWN) != grown(tokens, Sampling(0.8, seed=6, repetition_penalty=1.2))


@pytest.mark.parametrize("limit", ["nodes", "depth", "width", "children"])
def test_limits_under_one_are_refused(
    engine: Backend, drafter: FittedDrafter, rng: np.random.Generator, limit: str
) -> None:
    sequence = begun(engine, text(rng, 9))
    one = call(drafter, sequence)
    with pytest.raises(RowError, match="1 or more"):
        engine.draft_trees(drafter, [one._replace(**{limit: 0})])
    (slot,) = sequence.branch([1])
    with pytest.raises(RowError, match="speculative"):
        engine.draft_trees(drafter, [one])
    sequence.prune([slot])
    with pytest.raises(RowError, match="twice"):
        engine.draft_trees(drafter, [one, call(drafter, begun(engine, text(rng, 9)), one.column)])


@given(
    logits=st.lists(st.sampled_from([-3.0, 0.0, 0.5, 0.5, 4.0]), min_size=2, max_size=40),
    options=st.sampled_from([GREEDY, Sampling(1.0, seed=9), Sampling(0.7, top_k=4, top_p=0.9, seed=2)]),
    most=st.integers(1, 8),
)
def test_the_best_few_are_drawn_one_after_the_other(
    logits: list[float], options: Sampling, most: int
) -> None:
    """Each is what is drawn when those before are not there; equal logits come in order of ids."""
    ids, scores = plain.best(logits, options, 17, most)
    assert len(ids) == len(set(ids.tolist())) >= 1
    assert list(scores) == sorted(scores, reverse=True)
    left = np.array(logits, np.float32)
    if options.temperature > 0:  # filters act once, before anything is drawn
        gone = np.setdiff1d(np.arange(len(left)), plain.kept(left, options)[0])
        left[gone] = -np.inf
        options = Sampling(options.temperature, seed=options.seed)
    assert len(ids) == min(most, int((left > -np.inf).sum()))
    for token in ids:
        assert plain.sample(left, options, 17) == token
        left[token] = -np.inf
