"""Trees of drafts, n-gram lookup, and the drafters on a tiny reference model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from specee.backends.protocol import Backend, Work
from specee.clock import Clock
from specee.drafting import DraftHeads, DraftTree
from specee.drafting.exit_layer import ExitLayerDrafter
from specee.drafting.prompt_lookup import PromptLookupDrafter
from specee.errors import ConfigurationError
from specee.models.speculator import Adapter, Speculator
from specee.ngrams import NgramIndex
from specee.policies import Draft, DraftCost, DrafterTree, DraftSource, ExitLayer, NgramLookup
from specee.types import Sampling
from tests.random_model import BASE


def tree(
    backend: Backend,
    text: Sequence[int],
    source: DraftSource,
    length: int,
    stop_below: float = 0.0,
    **more: object,
) -> DraftTree:
    state = backend.sequence(64)
    state.append(text)
    ends = more.pop("ends", frozenset())
    index = more.pop("index", 0)
    return DraftTree(Draft(index, source, length, stop_below), state, list(text), Sampling(), ends, **more)  # type: ignore[arg-type]


def test_a_tree_has_nothing_behind_an_end(engine: Backend) -> None:
    """Nodes below a token that ends the text are left out, and indices close up."""
    grown = tree(engine, [1, 2, 3], DrafterTree(), 6, ends=frozenset({7}))
    grown.grow([7, 5, 6, 8, 9, 4], [-1, -1, 0, 1, 2, 3], [0.6, 0.3, 0.2, 0.1, 0.05, 0.04])
    assert grown.tokens == [3, 7, 5, 8, 4]
    assert grown.parents == [-1, 0, 0, 2, 3]
    assert grown.confidences == [0.6, 0.3, 0.1, 0.04]
    assert (grown.drafted, grown.depth, grown.open) == (4, 3, False)
    assert [grown.state.row(slot).token for slot in grown.state.speculative] == grown.tokens[1:]
    assert (grown.child(0, 7), grown.child(0, 5), grown.child(1, 6)) == (1, 2, None)
    grown.state.commit([grown.slots[2], grown.slots[3], grown.slots[4]])
    assert grown.state.length == 6


def naive_lookup(text: Sequence[int], source: NgramLookup, length: int) -> list[int]:
    for size in range(source.longest, source.shortest - 1, -1):
        suffix = list(text[len(text) - size :])
        for end in range(len(text) - 1, size - 1, -1):
            if size <= len(text) and list(text[end - size : end]) == suffix:
                copied = list(text[end:])
                while len(copied) < length:
                    copied.append(copied[len(copied) - (len(text) - end)])
                return copied[:length]
    return []


@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=30),
    st.integers(1, 3),
    st.integers(0, 2),
    st.integers(1, 12),
    st.integers(1, 30),
)
def test_lookup_is_the_naive_search(
    text: list[int], shortest: int, more: int, length: int, piece: int
) -> None:
    source = NgramLookup(shortest + more, shortest)
    index = NgramIndex(source.longest, source.shortest)
    for end in range(piece, len(text) + piece, piece):  # the text comes in pieces
        part = text[:end]
        index.update(part)
        tokens, confidence = index.lookup(length)
        assert tokens == naive_lookup(part, source, length)
        assert (0.5 < confidence < 1.0) if tokens else confidence == 0.0


def test_lookup_trusts_what_has_happened_before() -> None:
    """Rule of succession: seen once 2/3, twice in a row 3/4; after a change 2/3 again."""
    index, text = NgramIndex(1, 1), [1, 2]
    for more, token, confidence in (([1], 2, 2 / 3), ([2, 1], 2, 3 / 4), ([5, 1], 5, 2 / 3)):
        text += more
        index.update(text)
        assert index.lookup(1) == ([token], pytest.approx(confidence))


def test_a_tree_stops_where_plan_and_text_do(backend: Backend) -> None:
    full = tree(backend, [1, 2], NgramLookup(), 3)
    full.extend([4, 5, 6, 7], 0.9)
    assert (full.tokens, full.parents, full.drafted, full.open) == ([2, 4, 5, 6], [-1, 0, 1, 2], 3, False)
    ended = tree(backend, [1, 2], NgramLookup(), 9, ends=frozenset({5}))
    ended.extend([4, 5, 6], 0.9)
    assert (ended.tokens[1:], ended.open) == ([4, 5], False), (
        "the end of the text is drafted, nothing after it"
    )
    unsure = tree(backend, [1, 2], NgramLookup(), 9, 0.5)
    unsure.extend([4], 0.6)
    assert unsure.open
    unsure.extend([5, 6], 0.4)
    assert (unsure.tokens[1:], unsure.open) == ([4, 5], False), "the token that was unsure is still verified"
    assert not tree(backend, [1, 2], NgramLookup(), 0).open


def test_grafted_branches_are_found_by_token(backend: Backend) -> None:
    one = tree(backend, [1, 2], NgramLookup(), 9)
    one.graft([4, 5, 6], [-1, -1, 0], 0, [0.1, 0.2, 0.3])
    one.graft([7], None, 2, [0.4])
    assert one.parents == [-1, 0, 0, 1, 2]
    assert one.children(0) == [1, 2]
    assert (one.child(0, 5), one.child(1, 6), one.child(2, 7), one.child(0, 6)) == (2, 3, 4, None)
    assert one.confidences == [0.1, 0.2, 0.3, 0.4]
    assert [one.state.row(slot).parent for slot in one.slots[1:]] == [1, 1, one.slots[1], one.slots[2]]


class Calls:
    """A backend that notes what is advanced and drafted."""

    def __init__(self, backend: Backend) -> None:
        self.backend, self.advanced, self.drafted = backend, [], []

    def __getattr__(self, name: str) -> object:
        return getattr(self.backend, name)

    def advance(self, work: Work, to_layer: int) -> None:
        self.advanced.append((len(work), to_layer))
        self.backend.advance(work, to_layer)

    def draft(self, work: Work, *rest: object) -> object:
        self.drafted.append(len(work))
        return self.backend.draft(work, *rest)  # type: ignore[arg-type]


def test_an_exit_layer_drafts_its_own_greedy_tokens(backend: Backend) -> None:
    one = tree(backend, [1, 2, 3], ExitLayer(2), 4)
    ExitLayerDrafter(backend, DraftHeads(backend)).draft([one], Clock())
    text, confidences = [1, 2, 3], []
    for _ in range(4):
        state = backend.sequence(16)
        work = [(state, [state.append(text)[-1]])]
        backend.advance(work, 2)
        token, confidence = backend.draft(work, [Sampling()])
        text.append(int(token[0]))
        confidences.append(float(confidence[0]))
    assert one.tokens[1:] == text[3:]
    assert one.confidences == pytest.approx(confidences)
    assert one.state.frontier == (3, 3, 0)
    assert [one.state.row(slot).done for slot in one.slots[1:]] == [2, 2, 2, 0], (
        "the last draft waits at layer 0"
    )


def test_sequences_of_different_depth_share_layers(backend: Backend) -> None:
    calls = Calls(backend)
    trees = [
        tree(backend, [1, 2, 3], ExitLayer(1), 2),
        tree(backend, [4, 5], ExitLayer(2), 1),
        tree(backend, [6], ExitLayer(2), 0),
    ]
    ExitLayerDrafter(calls, DraftHeads(backend)).draft(trees, Clock())  # type: ignore[arg-type]
    assert calls.advanced == [(2, 1), (1, 2), (1, 1)]
    assert calls.drafted == [2, 1]
    assert [one.drafted for one in trees] == [2, 1, 0]
    alone = tree(backend, [1, 2, 3], ExitLayer(1), 2)
    ExitLayerDrafter(backend, DraftHeads(backend)).draft([alone], Clock())
    assert alone.tokens == trees[0].tokens


def test_lookup_drafts_a_chain_and_costs_no_model(backend: Backend) -> None:
    one = tree(backend, [1, 2, 3, 4, 1, 2], NgramLookup(), 5)
    none = tree(backend, [1, 2, 3], NgramLookup(), 5, index=1)
    clock = Clock()
    PromptLookupDrafter(backend).draft([one, none], clock)
    assert one.tokens[1:] == [3, 4, 1, 2, 3]
    assert none.drafted == 0
    assert clock.times.total == 0.0


def test_every_source_states_its_cost(backend: Backend) -> None:
    norm = np.ones(BASE.hidden_size, np.float32)
    adapter = Adapter(
        norm, np.zeros((4, BASE.hidden_size), np.float32), np.zeros((BASE.hidden_size, 4), np.float32)
    )
    heads = DraftHeads(backend, Speculator(np.arange(0, BASE.vocab_size, 4), {2: adapter}))
    drafter = ExitLayerDrafter(backend, heads)
    assert drafter.cost(ExitLayer(2)) == DraftCost(2, 1.0)
    trimmed, adapted = drafter.cost(ExitLayer(1, adapted=True)), drafter.cost(ExitLayer(2, adapted=True))
    assert trimmed == DraftCost(1, pytest.approx(26 / 101))
    assert adapted.head == pytest.approx(trimmed.head + 2 * 4 * 2 / (101 * 4), rel=0.2)
    assert PromptLookupDrafter(backend).cost(NgramLookup()) == DraftCost(0, 0.0)
    with pytest.raises(ConfigurationError, match="no draft head"):
        ExitLayerDrafter(backend, DraftHeads(backend)).cost(ExitLayer(1, adapted=True))


def test_sources_that_are_not_there_are_refused(backend: Backend) -> None:
    drafter = ExitLayerDrafter(backend, DraftHeads(backend))
    for layer in (0, -1, BASE.num_layers):
        with pytest.raises(ConfigurationError, match=rf"exit layer {layer}.*1..{BASE.num_layers - 1}"):
            drafter.check(ExitLayer(layer))
    drafter.check(ExitLayer(BASE.num_layers - 1))
    with pytest.raises(ConfigurationError, match="speculator"):
        drafter.check(ExitLayer(1, adapted=True))
    with pytest.raises(ConfigurationError, match="shortest"):
        PromptLookupDrafter(backend).check(NgramLookup(1, 2))
