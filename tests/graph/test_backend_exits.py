"""Early exits of the CUDA backend: one launch where a graph can do it, and always what steps would do."""

from __future__ import annotations

import threading
from collections.abc import Callable
from collections.abc import Sequence as Seq
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from specee.backends.protocol import ExitCall, RoundCall  # noqa: E402
from specee.engine import Generation, Request  # noqa: E402
from specee.policies import make_policy  # noqa: E402
from specee.types import Sampling  # noqa: E402
from tests.exactness.test_approximate import fitted, started  # noqa: E402
from tests.graph.exit_pair import (  # noqa: E402
    CANDIDATES,
    CAPACITY,
    EVERY,
    GREEDY,
    LAYERS,
    VOCABULARY,
    WAITING,
    ExitPair,
    Text,
    ask,
    bits,
    both,
    contents,
    leave,
    same,
    says,
    scripted,
    some_prompts,
)
from tests.graph.fake_driver import FakeDriver  # noqa: E402
from tests.graph.place import Place, emulated  # noqa: E402

KINDS = [("tiles", "bf16"), ("tiles-window", "bf16"), ("tiles-biases", "int8"), ("tiles-qk-norm", "int4")]
ONCE = ["cuMemcpyHtoDAsync_v2", "cuGraphLaunch", "cuMemcpyDtoHAsync_v2", "cuStreamSynchronize"]


@pytest.mark.parametrize(("shape", "weights"), KINDS)
def test_launches_do_what_steps_do(place: Place, rng: np.random.Generator, shape: str, weights: str) -> None:
    """Two texts, each with layers and a threshold of its own in each call; rows wait and catch up."""
    pair = ExitPair(place, rng, shape, weights, vocabulary=CANDIDATES + 2)
    whole, steps = both(pair, rng)
    seen, waited = set(), 0
    for _ in range(14):
        layers = [np.flatnonzero(rng.random(LAYERS - 1) < 0.8) + 1 for _ in whole]
        thresholds = rng.choice([-1.0, 0.2, 0.5, 0.9], 2).tolist()
        masks = [own.tolist() for own in layers]
        found = [bits(leave(texts, masks, thresholds).exits) for texts in (whole, steps)]
        assert found[0] == found[1]
        same(whole, steps)
        seen |= {layer for layer, *_ in found[0]}
        waited += max(one.state.length - 1 - one.state.frontier[-1] for one in whole) > 1
    assert pair.whole.taken > 9
    assert pair.steps.taken == 0
    assert len(seen) > 1, "all left at one layer"
    assert waited, "no row waited for the next one"


@pytest.mark.parametrize("leaves", [*EVERY, None])
def test_emulated_later_layers_do_not_run(
    fake: FakeDriver, rng: np.random.Generator, leaves: int | None
) -> None:
    """In one launch, and the head once: it confirms, or it draws at the end."""
    pair = scripted(emulated(fake), rng, leaves)
    texts, _ = both(pair, rng)
    names = ("swiglu_bf16", "target_pieces", "exit_chances")
    for call in range(4):
        before = [fake.ran(name) for name in names]
        exits = leave(texts, [EVERY] * 2, [0.5] * 2).exits
        assert [one.layer for one in exits] == [leaves or LAYERS] * 2
        if call > 1:
            ran = [fake.ran(name) - count for name, count in zip(names, before, strict=True)]
            assert ran == [leaves or LAYERS, 1, leaves or LAYERS - 1]
    # The first call is taken step by step, and so is the first for which more rows wait.
    assert pair.whole.taken == (3 if leaves is None else 2)


def test_emulated_rounds_are_launched_once(fake: FakeDriver, rng: np.random.Generator) -> None:
    """Between what the block says and what comes of it: one copy there, one launch, one copy back."""
    pair = scripted(emulated(fake), rng)
    texts, _ = both(pair, rng)
    sent = []
    for _ in range(5):
        before = len(fake.log())
        leave(texts, [()] * 2, [1.0] * 2)
        sent.append(fake.called(before))
    assert sent[2:] == [ONCE] * 3


@pytest.mark.parametrize("count", [1, 3, 5])
def test_rows_wait_until_there_are_too_many(place: Place, rng: np.random.Generator, count: int) -> None:
    """Whoever leaves at one layer leaves more and more rows there, until all of them go to the end."""
    pair = scripted(place, rng, 2)
    whole, steps = both(pair, rng, count)
    seen = []
    for _ in range(WAITING + 4):
        found = [bits(leave(texts, [EVERY] * count, [0.5] * count).exits) for texts in (whole, steps)]
        assert found[0] == found[1]
        seen.append(found[0][0][0])
    same(whole, steps)
    assert seen == [*[2] * WAITING, LAYERS, 2, 2, 2]
    # A launch has room for 64 rows: five texts wait with up to twelve, and the rest goes step by step.
    assert pair.whole.taken == {1: 17, 3: 17, 5: 12}[count]


MOVES = ["leave", "leave", "leave", "one", "complete", "begin", "rollback", "tree", "keep", "round"]


@pytest.mark.parametrize(("shape", "weights"), KINDS)
def test_in_any_order_with_other_verbs(
    place: Place, rng: np.random.Generator, shape: str, weights: str
) -> None:
    """What one way leaves is what the other way leaves, whatever comes next."""
    pair = ExitPair(place, rng, shape, weights)
    whole, steps = both(pair, rng)
    done: list[str] = []
    for _ in range(40):
        move, seed = str(rng.choice(MOVES)), int(rng.integers(2**31))
        done.append(move)
        found = [moved(move, texts, np.random.default_rng(seed)) for texts in (whole, steps)]
        assert found[0] == found[1], done
        same(whole, steps)
    assert pair.whole.taken > 0, done
    assert pair.steps.taken == 0


def moved(move: str, texts: Seq[Text], rng: np.random.Generator) -> Any:
    """What is said; texts have a newest row then that has been through no layer, mostly."""
    at = int(rng.integers(len(texts)))
    one, state, backend = texts[at], texts[at].state, texts[at].side.backend
    token = int(rng.integers(VOCABULARY))
    chosen = [one] if move in ("one", "tree") else list(texts)
    layers = [(np.flatnonzero(rng.random(LAYERS - 1) < 0.7) + 1).tolist() for _ in chosen]
    thresholds = rng.choice([-1.0, 0.2, 0.5, 0.9], len(chosen)).tolist()
    said: Any = None
    if move in ("leave", "one"):
        said = bits(leave(chosen, layers, thresholds).exits)
    elif move == "complete":
        backend.advance([(state, [state.length - 2])], LAYERS)
    elif move == "begin":
        backend.advance([(state, [state.length - 1])], int(rng.integers(1, LAYERS + 1)))
        state.append([token])
    elif move == "rollback":
        state.rollback(int(rng.integers(1, 3)))
        state.append([token, token])
    elif move == "tree":
        live = state.branch([token, 1, 2], [-1, 0, 0])
        said = bits(ask(chosen, layers, thresholds).exits)
        state.prune(live[:1])
        state.append([token])
    elif move == "keep":
        state.keep([[], [1, LAYERS], [1, 3, LAYERS]][int(rng.integers(3))], 4)
    else:
        said = backend.run_rounds([RoundCall(state, one.sampling, (), 9)])[0].texts
        backend.advance([(state, [0])], 1)  # nobody is promised states of rows that rounds complete
    for text in texts:
        if text.state.length > CAPACITY - 6:
            text.state.rollback(text.state.length - 3)
            text.state.append([token])
    return said


def test_texts_fill_their_capacity(place: Place, rng: np.random.Generator) -> None:
    """A launch needs no room behind a text, whatever waits."""
    pair = scripted(place, rng, 3)
    whole, steps = both(pair, rng, capacity=12)
    longest = max(one.state.length for one in whole)
    for _ in range(12 - longest):
        found = [bits(leave(texts, [EVERY] * 2, [0.5] * 2).exits) for texts in (whole, steps)]
        assert found[0] == found[1]
        same(whole, steps)
    assert max(one.state.length for one in whole) == 12
    found = [bits(ask(texts, [EVERY] * 2, [0.5] * 2).exits) for texts in (whole, steps)]
    assert found[0] == found[1]
    same(whole, steps)
    assert pair.whole.taken == 12 - longest - 1


def penalty(texts: list[Text]) -> list[ExitCall]:
    return [text.call(EVERY, 0.5)._replace(sampling=Sampling(repetition_penalty=1.3)) for text in texts]


def filtered(texts: list[Text]) -> list[ExitCall]:
    return [text.call(EVERY, 0.5)._replace(sampling=Sampling(1.0, top_k=5, seed=3)) for text in texts]


def earlier(texts: list[Text]) -> list[ExitCall]:
    """Rows before the newest, that wait."""
    for text in texts:
        text.state.append([3])
    return [text.call(EVERY, 0.5)._replace(slot=text.state.length - 2) for text in texts]


def begun(texts: list[Text]) -> list[ExitCall]:
    for text in texts:
        text.side.backend.advance([(text.state, [text.state.length - 1])], 1)
    return [text.call(EVERY, 0.5) for text in texts]


def speculative(texts: list[Text]) -> list[ExitCall]:
    slots = [text.state.branch([3])[0] for text in texts]
    return [text.call(EVERY, 0.5)._replace(slot=slot) for text, slot in zip(texts, slots, strict=True)]


def long(texts: list[Text]) -> list[ExitCall]:
    """A prompt that has been through no layer."""
    for text in texts:
        text.state.append([2] * (WAITING + 1))
    return [text.call((), 0.5) for text in texts]


def nothing(texts: list[Text]) -> list[ExitCall]:
    return []


@pytest.mark.parametrize("calls", [penalty, filtered, earlier, begun, speculative, long, nothing])
def test_the_rest_goes_step_by_step(
    place: Place, rng: np.random.Generator, calls: Callable[[list[Text]], list[ExitCall]]
) -> None:
    pair = scripted(place, rng)
    found = []
    for side in pair.sides:
        texts = pair.texts(side, [[1, 2, 3], [4, 5]], [GREEDY] * 2)
        length = [text.state.length for text in texts]
        for _ in range(3):
            said = side.backend.leave_early(side.drafter, side.exits, calls(texts), confirm=True)
            found.append(bits(said.exits))
            for text, begin in zip(texts, length, strict=True):
                text.state.rollback(text.state.length - begin + 1)
                text.state.append([5])
        found.append([contents(text.state) for text in texts])
    assert found[:4] == found[4:]
    assert pair.whole.taken == 0
    others = [pair.texts(pair.whole, [[1, 2], [3, 4]], [GREEDY] * 2) for _ in range(4)]
    for texts in others:
        leave(texts, [EVERY] * 2, [0.5] * 2)
    assert pair.whole.taken == 0, "they come only once"
    for _ in range(2):
        leave(texts, [EVERY] * 2, [0.5] * 2)
    assert pair.whole.taken == 2, "the negative control"


def test_unconfirmed_exits_go_step_by_step(place: Place, rng: np.random.Generator) -> None:
    pair = ExitPair(place, rng)
    whole, steps = both(pair, rng)
    for _ in range(3):
        found = [bits(ask(texts, [EVERY] * 2, [0.3] * 2, confirm=False).exits) for texts in (whole, steps)]
        assert found[0] == found[1]
        for text in (*whole, *steps):
            text.state.append([3])
    same(whole, steps)
    assert pair.whole.taken == 0


def test_predictors_have_rounds_of_their_own(place: Place, rng: np.random.Generator) -> None:
    """Others over the same texts say something else, in a graph of their own."""
    pair = scripted(place, rng, 2)
    others = says({layer: 0.9 if layer == 4 else 0.1 for layer in EVERY})
    texts, _ = both(pair, rng)
    side = pair.whole
    first, second = side.exits, side.backend.exit_predictors(others)
    for turn in range(8):
        side.exits = (first, second)[turn % 2]
        assert [one.layer for one in leave(texts, [EVERY] * 2, [0.5] * 2).exits] == [(2, 4)[turn % 2]] * 2
    assert side.taken > 3


def test_seconds_are_shared_out(place: Place, rng: np.random.Generator) -> None:
    pair = scripted(place, rng, 2)
    texts, _ = both(pair, rng)
    *steps, found = [leave(texts, [EVERY] * 2, [0.5] * 2) for _ in range(3)]
    assert pair.whole.taken == 1
    for step in steps:
        assert min(step.draft, step.layers, step.head) > 0
    assert min(found.draft, found.layers, found.head) > 0
    layer, head = pair.whole.backend._exits._bytes_read
    assert found.layers / found.head == pytest.approx(2 * layer / head)


@pytest.mark.parametrize("options", ["threshold=0.4", "layers=all"])
def test_the_engine_asks_for_them(place: Place, rng: np.random.Generator, options: str) -> None:
    """Several texts, of which one after the other ends; what waits then is completed."""
    pair = ExitPair(place, rng, vocabulary=16)  # as many as candidates that fitted() has
    samplings = [GREEDY, Sampling(0.9, seed=5)]
    requests = [
        Request(tuple(prompt), count, sampling, ends)
        for prompt, count, sampling, ends in zip(
            some_prompts(rng), (26, 12), samplings, (frozenset[int](), frozenset({15})), strict=True
        )
    ]
    said, left = [], set()
    for side in pair.sides:
        backend = side.backend
        policy = make_policy(f"specee:mode=approximate,{options}")
        generation = Generation(backend, started(backend, requests), policy, fitted(backend))
        list(generation)
        for one in generation.sequences.values():
            exits = [layer for turn in generation.statistics.rounds(one.id) for layer in turn.exits]
            said.append((one.generated, exits, contents(one.state)))
            left |= set(exits)
            assert one.state.frontier == (one.state.length - 1,) * LAYERS
    assert said[:2] == said[2:]
    assert min(left) < LAYERS, "nobody left early"
    assert pair.whole.taken > 15
    assert pair.steps.taken == 0


def test_emulated_exits_in_a_thread_without_a_context(fake: FakeDriver, rng: np.random.Generator) -> None:
    """Such as the next one that a server's pool has; without candidates, which other kernels make."""
    pair = scripted(emulated(fake), rng)
    whole, steps = both(pair, rng)
    found: list[Any] = []

    def run(texts: list[Text]) -> None:
        found.append(bits(leave(texts, [()] * 2, [0.5] * 2).exits))

    for _ in range(4):
        run(whole)
    taken = pair.whole.taken
    thread = threading.Thread(target=run, args=(whole,))
    thread.start()
    thread.join()
    assert pair.whole.taken == taken + 1
    for _ in range(5):
        run(steps)
    assert found[:5] == found[5:]
    same(whole, steps)
