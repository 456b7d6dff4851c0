"""Rounds of the CUDA backend: one launch where a graph can do it, and in any case what steps would say."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from specee.backends.cuda import CudaBackend  # noqa: E402
from specee.backends.protocol import (  # noqa: E402
    LayerChainCall,
    RoundCall,
    RoundTurn,
)
from specee.cuda.record import SequencePlan  # noqa: E402
from specee.engine import Generation, Request, reserve  # noqa: E402
from specee.errors import NumericalError, RowError  # noqa: E402
from specee.models.speculator import Adapter  # noqa: E402
from specee.policies import Autoregressive, Policy  # noqa: E402
from specee.policies.layerskip import LayerSkip  # noqa: E402
from specee.types import Sampling  # noqa: E402
from tests.graph.fake_driver import FakeDriver  # noqa: E402
from tests.graph.place import Place, emulated  # noqa: E402
from tests.graph.round_pair import CAPACITY, GREEDY, NOBODY, Pair, drafting, plain  # noqa: E402

ONCE = ["cuMemcpyHtoDAsync_v2", "cuGraphLaunch", "cuMemcpyDtoHAsync_v2", "cuStreamSynchronize"]


@pytest.mark.parametrize(
    ("shape", "weights"),
    [("tiles", "bf16"), ("tiles-window", "bf16"), ("tiles-biases", "int8"), ("tiles-qk-norm", "int4")],
)
def test_plain_rounds(place: Place, rng: np.random.Generator, shape: str, weights: str) -> None:
    pair = Pair(place, rng, shape, weights)
    samplings = [Sampling(), Sampling(temperature=0.8, seed=int(rng.integers(2**63)) * 2 + 1)]
    said, _ = pair.both(plain(8, samplings), poison=True)
    assert len(said) == 8
    assert pair.whole.graphs_missing is None
    # The first round has the prompts to compute, and a round is recorded when it comes for the second time.
    assert pair.taken == 6
    assert pair.steps._rounds.taken == 0


def test_emulated_rounds_are_launched_once(fake: FakeDriver, rng: np.random.Generator) -> None:
    pair = Pair(emulated(fake), rng)
    sequences = pair.sequences(pair.whole)
    plain(3)(pair.whole, sequences)
    assert pair.taken == 1
    before = len(fake.log())
    plain(5)(pair.whole, sequences)
    assert fake.called(before) == ONCE * 5
    assert pair.taken == 6


def test_emulated_rounds_in_a_thread_without_a_context(fake: FakeDriver, rng: np.random.Generator) -> None:
    """Such as the next one that a server's pool has: kernels launched one by one bind it, copies do not."""
    pair = Pair(emulated(fake), rng)
    sequences = pair.sequences(pair.whole)
    said = plain(4)(pair.whole, sequences)
    before, found = len(fake.log()), []
    thread = threading.Thread(target=lambda: found.extend(plain(3)(pair.whole, sequences)))
    thread.start()
    thread.join()
    bind, (to, launch, *back) = "cuCtxSetCurrent", ONCE
    assert fake.called(before) == [bind, to, bind, bind, launch, bind, bind, *back, bind] * 3
    expected = [turn.texts for turn in plain(7)(pair.steps, pair.sequences(pair.steps))]
    assert [turn.texts for turn in said + found] == expected


def test_seconds_are_shared_out(place: Place, rng: np.random.Generator) -> None:
    pair = Pair(place, rng)
    sequences = pair.sequences(pair.whole)
    last = plain(4)(pair.whole, sequences)[-1]
    assert pair.taken == 2
    assert last.draft == last.draft_head == 0
    assert min(last.layers, last.head) > 0
    turns = drafting(4, 2, 1)(pair.whole, sequences)
    assert pair.taken > 2
    assert min(turns[-1][1:]) > 0


def zero_last(pair: Pair) -> int:
    """With a last layer that adds nothing, what the others draft is what all of them say."""
    last = pair.config.num_layers - 1
    for backend in (pair.whole, pair.steps):
        for role in ("o", "down"):
            backend._table.matrix(role, last).zero_()
    return last


@pytest.mark.parametrize("right", [False, True])
def test_drafts(place: Place, rng: np.random.Generator, right: bool) -> None:
    pair = Pair(place, rng, "tiles")
    layer = zero_last(pair) if right else 1
    said, _ = pair.both(drafting(5, 3, layer), poison=True)
    assert pair.taken == 3
    drafted = [len(text.confidences) for turn in said for text in turn]
    accepted = [len(text.accepted) for turn in said for text in turn]
    assert drafted == [3] * len(drafted)
    if right:
        assert accepted == drafted


def test_drafts_of_some(place: Place, rng: np.random.Generator) -> None:
    """As many as each is to have, in a round that has room for the most."""
    pair = Pair(place, rng, "tiles")
    layer = zero_last(pair)
    for lengths in ((3, 0), (1, 4)):
        said, _ = pair.both(drafting(4, 0, layer, lengths=lengths))
        assert [[len(text.confidences) for text in turn] for turn in said] == [list(lengths)] * 4
    assert pair.taken == 4


def test_drafts_that_are_not_sure_are_the_last(place: Place, rng: np.random.Generator) -> None:
    pair = Pair(place, rng, "tiles")
    said, _ = pair.both(drafting(4, 4, 1, stop_below=2.0))
    assert {len(text.confidences) for turn in said for text in turn} == {1}
    assert pair.taken == 2


def fresh_end(place: Place, rng: np.random.Generator) -> tuple[Pair, int, int]:
    """Models, a layer whose chains are right, and a token that comes in a third chain for the first time."""
    for _ in range(50):
        pair = Pair(place, rng, "tiles")
        layer = zero_last(pair)
        turns = drafting(3, 3, layer)(pair.steps, pair.sequences(pair.steps))
        said = [text.tokens for turn in turns for text in turn.texts]
        seen = {token for tokens in said[:4] for token in tokens}
        seen |= {tokens[0] for tokens in said[4:]}
        chain = said[4][1:3]
        if len(said[4]) == 4 and (new := [token for token in chain if token not in seen]):
            return pair, layer, new[0]
    raise AssertionError("fifty models repeat themselves")


def test_texts_end(place: Place, rng: np.random.Generator) -> None:
    """At a token that ends them, drafted or not, or with as many as they may be given."""
    pair, layer, end = fresh_end(place, rng)
    before = pair.taken
    said, _ = pair.both(drafting(4, 3, layer, ends=[end]))
    assert pair.taken > before
    assert len(said) == 3
    last = next(text for text in said[-1] if text.tokens[-1] == end)
    assert len(last.tokens) < 4
    assert len(last.accepted) == len(last.tokens), "what is behind it is no text"
    before = pair.taken
    said, sequences = pair.both(drafting(9, 3, layer, remaining=10))
    assert pair.taken > before
    grown = [one.length - len(text) for one, text in zip(sequences, pair.texts, strict=True)]
    assert max(grown) == 10
    assert grown == [sum(len(turn[at].tokens) for turn in said) for at in range(2)]
    assert len(pair.both(plain(30, ends=[end]))[0]) < 30


def test_the_end_of_a_cache_goes_step_by_step(place: Place, rng: np.random.Generator) -> None:
    """A round has all of its rows: where there is no room for them, steps have less."""
    pair = Pair(place, rng)
    room = CAPACITY - max(map(len, pair.texts))
    said, sequences = pair.both(plain(room, remaining=room))
    assert len(said) == room
    assert max(one.length for one in sequences) == CAPACITY
    assert pair.taken == room - 2
    # Chains of four: a room for seven where it fits, for four where only that does, and steps behind it.
    pair = Pair(place, rng)
    for length, drafts in ((CAPACITY - 8, 7), (CAPACITY - 7, 4), (CAPACITY - 5, 4), (CAPACITY - 4, None)):
        sequence = pair.whole.sequence(CAPACITY)
        pair.whole.advance([(sequence, sequence.append([1] * (length - 1)))], pair.config.num_layers)
        sequence.append([1])
        call = RoundCall(sequence, GREEDY, (), 4, LayerChainCall(sequence, 1, None, 4, 0.0, GREEDY))
        wanted = pair.whole._rounds._wants.of([call], NOBODY)
        assert (None if wanted is None else wanted.shape.drafts) == drafts
        if wanted is not None:
            round_ = [pair.whole._rounds._round(wanted) for _ in range(2)][-1]
            assert round_ is not None
            plans = [SequencePlan(1, length - 1, drafts=4)]
            round_.run(range(pair.config.num_layers), plans)


def chains(
    backend: CudaBackend, sequences: list[Any], text: Sampling, drafts: Sampling, head: Any
) -> list[RoundTurn]:
    found = []
    for _ in range(4):
        calls = [
            RoundCall(one, text, (), 30, LayerChainCall(one, 1, head, 2, 0.0, drafts)) for one in sequences
        ]
        found += backend.run_rounds(calls)
    return found


def test_kept_states(place: Place, rng: np.random.Generator) -> None:
    """Of as many positions as are wanted, in chains and plain rounds, the last layer's too."""
    pair = Pair(place, rng, "tiles")
    last = zero_last(pair)
    states: list[list[bytes]] = []

    def run(backend: CudaBackend, sequences: list[Any]) -> list[RoundTurn]:
        sequences[0].keep([1, last + 1], 3)
        sequences[1].keep([last], 2)
        found = plain(4)(backend, sequences) + drafting(3, 2, last)(backend, sequences)
        states.append([])
        for one in sequences:
            assert one.kept == (3 if one is sequences[0] else 2)
            for slot in range(one.frontier[-1] - one.kept, one.frontier[-1]):
                for layer in one.layers_kept:
                    states[-1].append(one.kept_state(slot, layer).cpu().numpy().tobytes())
        return found

    pair.both(run)
    assert pair.taken == 2 + 2
    assert states[0] == states[1]
    assert len(set(states[0])) == len(states[0]) == 8


def test_sampled_drafts_of_heads_of_their_own(place: Place, rng: np.random.Generator) -> None:
    pair = Pair(place, rng, "tiles")
    vocabulary = np.sort(rng.permutation(pair.config.vocab_size)[: pair.config.vocab_size // 2])
    sampled = Sampling(temperature=0.7, seed=int(rng.integers(2**62)))
    for head in (None, (None, vocabulary), (None, vocabulary, "Q4_1")):
        for text in (GREEDY, sampled):
            before = pair.taken

            def run(
                backend: CudaBackend, sequences: list[Any], head: Any = head, text: Sampling = text
            ) -> list[RoundTurn]:
                own = None if head is None else backend.draft_head(*head)
                return chains(backend, sequences, text, text, own)

            said, _ = pair.both(run)
            assert pair.taken == before + 2
            assert {len(one.confidences) for turn in said for one in turn} == {2}


def left_to_steps(pair: Pair) -> dict[str, Callable[[CudaBackend, list[Any]], list[RoundTurn]]]:
    """What graphs do not do."""

    def adapted(backend: CudaBackend, sequences: list[Any]) -> list[RoundTurn]:
        hidden = pair.config.hidden_size
        adapter = Adapter(np.ones(hidden), np.full((8, hidden), 0.1), np.full((hidden, 8), 0.1))
        return chains(backend, sequences, GREEDY, GREEDY, backend.draft_head(adapter, None))

    def otherwise(backend: CudaBackend, sequences: list[Any]) -> list[RoundTurn]:
        return chains(backend, sequences, Sampling(temperature=1.0, seed=4), GREEDY, None)

    penalty, filtered = Sampling(repetition_penalty=1.3), Sampling(temperature=1.0, top_k=5, seed=1)
    return {
        "adapters": adapted,
        "drafts drawn otherwise": otherwise,
        "penalties": plain(4, [penalty, GREEDY]),
        "filters": plain(4, [GREEDY, filtered]),
        "long chains": drafting(4, 18, 1),
    }


@pytest.mark.parametrize(
    "what",
    [
        "adapters",
        "drafts drawn otherwise",
        "penalties",
        "filters",
        "long chains",
    ],
)
def test_the_rest_goes_step_by_step(place: Place, rng: np.random.Generator, what: str) -> None:
    pair = Pair(place, rng)
    pair.both(left_to_steps(pair)[what])
    assert pair.taken == 0
    pair.both(plain(4))
    assert pair.taken == 2, "the negative control"


def test_rows_that_wait_go_step_by_step(place: Place, rng: np.random.Generator) -> None:
    pair = Pair(place, rng)

    def run(backend: CudaBackend, sequences: list[Any]) -> list[RoundTurn]:
        found = plain(3)(backend, sequences)
        backend.advance([(sequences[0], [sequences[0].length - 1])], 1)
        found += plain(1)(backend, sequences)
        sequences[1].branch([3, 4])
        return [*found, *plain(1)(backend, sequences)]

    pair.both(run)
    assert pair.taken == 1


def test_mistakes_are_told_as_in_steps(place: Place, rng: np.random.Generator) -> None:
    pair = Pair(place, rng)
    sequences = pair.sequences(pair.whole)
    plain(4)(pair.whole, sequences)
    with pytest.raises(RowError, match="appears twice"):
        plain(1)(pair.whole, [sequences[0]] * 2)
    with pytest.raises(RowError, match="does not belong"):
        plain(1)(pair.steps, sequences)
    with pytest.raises(RowError, match="0 tokens"):
        plain(1, remaining=0)(pair.whole, sequences)
    with pytest.raises(RowError, match="0 turns"):
        plain(0)(pair.whole, sequences)
    foreign = LayerChainCall(sequences[1], 1, None, 1, 0.0, GREEDY)
    with pytest.raises(RowError, match="for another sequence"):
        pair.whole.run_rounds([RoundCall(sequences[0], GREEDY, (), 9, foreign)])


def test_rounds_and_steps_of_every_kind_in_any_order(place: Place, rng: np.random.Generator) -> None:
    """What one way leaves is what the other way leaves, whatever comes next."""
    pair = Pair(place, rng)
    layer = 1
    moves = rng.choice(["plain", "drafts", "rollback", "keep", "forget", "wait", "tree"], 30).tolist()

    def run(backend: CudaBackend, sequences: list[Any]) -> list[RoundTurn]:
        found = []
        for at, move in enumerate(moves):
            one = sequences[at % 2]
            if move == "rollback":
                for own in sequences:  # the next round computes the newest position again
                    own.rollback(min(2, own.length))
                    own.append([at])
            elif move in ("keep", "forget"):
                one.keep([1, 2] if move == "keep" else [], 3)
            elif move == "wait":
                backend.advance([(one, [one.length - 1])], 1)
            elif move == "tree":
                one.branch([3, 4, 5], [-1, 0, 0])
                found += plain(1)(backend, sequences)
            elif move == "plain":
                found += plain(3)(backend, sequences)
            else:
                found += drafting(3, 2, layer)(backend, sequences)
            if max(own.length for own in sequences) > CAPACITY - 16:
                for own in sequences:
                    own.rollback(max(own.length - 4, 0))
                    own.append([at])
        return found

    pair.both(run, poison=True)
    pair.both(plain(4))
    assert pair.taken > 0


def test_numbers_that_are_none(place: Place, rng: np.random.Generator) -> None:
    pair = Pair(place, rng)
    sequences = pair.sequences(pair.whole)
    plain(4)(pair.whole, sequences)
    lengths = [one.length for one in sequences]
    pair.whole._table.vector("final_norm").fill_(float("nan"))
    with pytest.raises(NumericalError, match="sequence 0 of 2 has a logit that is not a number"):
        plain(1)(pair.whole, sequences)
    assert [one.length for one in sequences] == lengths


@pytest.mark.parametrize("policy", ["autoregressive", "layerskip"])
def test_the_engine_asks_for_them(place: Place, rng: np.random.Generator, policy: str) -> None:
    """Several texts, of which one after the other ends."""
    pair = Pair(place, rng, "tiles")
    texts = []
    for backend in (pair.whole, pair.steps):
        own: Policy = Autoregressive() if policy == "autoregressive" else LayerSkip(exit_layer=1)
        requests = [Request(tuple(text), count) for text, count in zip(pair.texts, (30, 12), strict=True)]
        running = reserve(backend, requests)
        for _ in Generation(backend, running, own):
            pass
        texts.append([one.generated for one in running])
    assert texts[0] == texts[1]
    assert [len(text) for text in texts[0]] == [30, 12]
    assert pair.taken > 5
