"""Passes and rows of drafter blocks that come again: one launch each, with the bits of many."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from specee.backends import cuda_repeats  # noqa: E402
from specee.backends.cuda import CudaBackend  # noqa: E402
from specee.backends.cuda_drafter import CudaDrafter  # noqa: E402
from specee.backends.cuda_repeats import ONE_BY_ONE  # noqa: E402
from specee.backends.protocol import ChainCall, TreeCall  # noqa: E402
from specee.errors import ConfigurationError, DeviceError, OutOfMemoryError  # noqa: E402
from specee.types import Sampling  # noqa: E402
from tests.graph.fake_driver import OUT_OF_MEMORY, FakeDriver  # noqa: E402
from tests.graph.place import Place, emulated  # noqa: E402
from tests.graph.round_pair import Pair, contents  # noqa: E402
from tests.random_drafter import random_parts  # noqa: E402

REFUSED = 1  # CUDA_ERROR_INVALID_VALUE
ENOUGH = ONE_BY_ONE + 1  # times, until a pass is a graph


def begun(backend: CudaBackend, pair: Pair, keep: tuple[int, ...] = ()) -> Any:
    """A sequence whose first text is computed."""
    sequence = backend.sequence(64, poison=True)
    sequence.keep(keep, 64)
    slots = sequence.append(pair.texts[0])
    backend.advance([(sequence, slots)], pair.config.num_layers)
    return sequence


def again(backend: CudaBackend, sequence: Any, rows: int = 2) -> None:
    """The same pass, over other rows of the same number."""
    slots = sequence.append(range(rows))
    backend.advance([(sequence, slots)], backend.config.num_layers)
    sequence.rollback(rows)


def test_emulated_passes_are_one_launch_each(fake: FakeDriver, rng: np.random.Generator) -> None:
    pair = Pair(emulated(fake), rng)
    sequence, launched = begun(pair.whole, pair), pair.place.launcher.launched
    counts = []
    for _ in range(ENOUGH + 2):
        before, kernels = len(fake.log()), len(launched)
        again(pair.whole, sequence)
        calls = fake.called(before)
        counts.append((len(launched) - kernels, calls.count("cuGraphInstantiateWithFlags")))
        assert "cuModuleLoadData" not in calls, "a graph without conditions needs no kernel for them"
        if len(counts) > ENOUGH:
            assert calls == ["cuGraphLaunch"]
    one_by_one = counts[0][0]
    assert one_by_one > 10 * pair.config.num_layers
    # The first one is written down, and some are repeated before there is a graph.
    assert counts == [(one_by_one, 0)] * ONE_BY_ONE + [(0, 1)] + [(0, 0)] * 2
    kernels = len(launched)
    again(pair.whole, sequence, rows=3)
    assert len(launched) - kernels == one_by_one, "another pass is not the same"
    sequence = begun(pair.steps, pair)
    for _ in range(ENOUGH + 1):
        kernels = len(launched)
        again(pair.steps, sequence)
        assert len(launched) - kernels == one_by_one, "the negative control: a backend without graphs"


def graphs_of(backend: CudaBackend) -> int:
    """Of passes."""
    return sum(one.graph is not None for one in backend._layers._courses._known.values())


@pytest.mark.parametrize(
    ("shape", "weights"), [("tiles-window", "bf16"), ("tiles-biases", "int8"), ("tiles-qk-norm", "int4")]
)
def test_rows_of_every_kind_have_the_bits_of_launches_one_by_one(
    place: Place, rng: np.random.Generator, shape: str, weights: str
) -> None:
    """Trees and chains of few shapes, so that they come again, with states kept, and rows that wait."""
    pair = Pair(place, rng, shape, weights)
    last, layers = pair.config.num_layers, (1, pair.config.num_layers)
    moves = rng.choice(["chain", "tree", "wait", "text"], 36).tolist()
    tokens = rng.integers(0, pair.config.vocab_size, (36, 4)).tolist()

    def run(backend: CudaBackend) -> tuple[list[Any], int]:
        sequence, said = begun(backend, pair, layers), []
        for move, own in zip(moves, tokens, strict=True):
            if sequence.length > 40:
                sequence.rollback(sequence.length - 4)
            if move == "text":
                sequence.append(own[:1])
                work = [(sequence, [sequence.length - 1])]
                backend.advance(work, last)
            else:
                rows = sequence.branch(own, None if move != "tree" else [-1, 0, 0, 1])
                work = [(sequence, rows)]
                if move == "wait":
                    backend.advance([(sequence, rows[:2])], 1)
                backend.advance(work, last)
            said.append((backend.argmax(work).tolist(), backend.hidden(work).tobytes()))
            if move != "text":
                path = rows[:2] if move == "tree" else rows[:3]
                sequence.commit(path)
                states = [sequence.kept_state(sequence.length - 1, layer) for layer in layers]
                said.append([state.cpu().numpy().tobytes() for state in states])
        return [*said, contents(sequence, last)], graphs_of(backend)

    (whole, graphs), (steps, none) = run(pair.whole), run(pair.steps)
    assert whole == steps
    assert graphs > 1
    assert none == 0
    assert pair.whole.graphs_missing is None


def test_emulated_passes_read_what_is_there_now(fake: FakeDriver, rng: np.random.Generator) -> None:
    """The negative control: a graph is of addresses, so other weights make other states."""
    pair = Pair(emulated(fake), rng)
    sequence = begun(pair.whole, pair)

    def state() -> bytes:
        slots = sequence.append([1, 2])
        pair.whole.advance([(sequence, slots)], pair.config.num_layers)
        found = pair.whole.hidden([(sequence, slots)]).tobytes()
        sequence.rollback(2)
        return found

    first = [state() for _ in range(ENOUGH + 1)]
    assert len(set(first)) == 1
    pair.whole._table.matrix("o", 0).zero_()
    before = len(fake.log())
    assert state() != first[0]
    assert "cuGraphLaunch" in fake.called(before)


def test_emulated_passes_that_cannot_be_graphs(fake: FakeDriver, rng: np.random.Generator) -> None:
    """What fails while one is made is told, and the pass goes kernel by kernel as before."""
    pair = Pair(emulated(fake), rng)
    sequence = begun(pair.whole, pair)
    for _ in range(ONE_BY_ONE):
        again(pair.whole, sequence)
    recordings = pair.whole._layers._courses._known.values()
    [recording] = [one for one in recordings if one._one_by_one == ONE_BY_ONE]
    graphs, live = pair.whole._graphs, fake.live()
    for at in range(1, 4000):
        fake.fail(at, REFUSED)
        made = graphs.make(recording)
        fake.fail(0)
        if made is not None:
            break
        assert "could not be made a graph" in (pair.whole.graphs_missing or "")
        assert graphs.make(recording) is None, "nor is another"
        assert fake.live() == live
        graphs.failed = None
    assert at > len(recording.launches), "there is a lot that can fail"
    graphs.failed, recording.graph = "scripted", None
    before, launched = len(fake.log()), len(pair.place.launcher.launched)
    again(pair.whole, sequence)
    assert "cuGraphLaunch" not in fake.called(before)
    assert len(pair.place.launcher.launched) > launched
    assert pair.whole.graphs_missing == "scripted"


@pytest.mark.parametrize(
    "call", ["cuGraphCreate", "cuGraphAddKernelNode_v2", "cuGraphInstantiateWithFlags", "cuGraphUpload"]
)
def test_emulated_passes_that_the_driver_has_no_memory_for(
    fake: FakeDriver, rng: np.random.Generator, call: str
) -> None:
    """That one goes kernel by kernel, until it has come as often once more; others may fit."""
    pair = Pair(emulated(fake), rng)
    sequence = begun(pair.whole, pair)
    for _ in range(ENOUGH):
        before = len(fake.log())
        again(pair.whole, sequence, rows=3)
    names = [line.split()[0] for line in fake.log()[before:]]
    for _ in range(ONE_BY_ONE):
        again(pair.whole, sequence)
    # The pass has its numbers by torch: the driver's calls are those for the graph, as they were before.
    before, at = len(fake.log()), names.index(call)
    fake.fail(at + 1, OUT_OF_MEMORY)
    again(pair.whole, sequence)
    fake.fail(0)
    assert fake.log()[before + at].startswith(call)
    again(pair.whole, sequence)
    assert "cuGraphLaunch" not in fake.called(before)
    assert pair.whole.graphs_missing is None
    for rows in (1, 2):
        for _ in range(ENOUGH):
            before = len(fake.log())
            again(pair.whole, sequence, rows)
        assert fake.called(before)[-1] == "cuGraphLaunch"


def test_emulated_graphs_go_with_their_sequence_or_make_way(
    fake: FakeDriver, rng: np.random.Generator
) -> None:
    pair = Pair(emulated(fake), rng)
    stays, goes = (begun(pair.whole, pair) for _ in range(2))
    for sequence in (stays, goes):
        for _ in range(ENOUGH):
            again(pair.whole, sequence)
    assert fake.live()["executables"] == 2
    del goes, sequence
    gc.collect()
    assert fake.live()["executables"] == 1
    drafter = pair.whole.drafter(random_parts(pair.config, (1, pair.config.num_layers), rng))
    assert isinstance(drafter, CudaDrafter)
    column, state = drafter.column(64, "bf16"), torch.zeros(pair.config.hidden_size)
    for position in range(ENOUGH):
        drafter.row(column, position, state, state)
    assert fake.live()["executables"] == 2
    free = pair.whole._free
    pair.whole._free = lambda: 0
    with pytest.raises(OutOfMemoryError):
        pair.whole.sequence(64)
    pair.whole._free = free
    assert fake.live()["executables"] == 0
    for _ in range(ENOUGH):
        again(pair.whole, stays)
    assert fake.live()["executables"] == 1, "it has come as often again"


def test_emulated_launches_of_graphs_that_fail(fake: FakeDriver, rng: np.random.Generator) -> None:
    """Rows are where they were, and go on when it works again."""
    pair = Pair(emulated(fake), rng)
    found = []
    for backend in (pair.whole, pair.steps):
        sequence = begun(backend, pair)
        for _ in range(ENOUGH):
            again(backend, sequence)
        slots = sequence.append([1, 2])
        if backend is pair.whole:
            fake.fail(2)  # the first call asks for the context
            with pytest.raises(DeviceError, match="launching a graph failed"):
                backend.advance([(sequence, slots)], pair.config.num_layers)
            fake.fail(0)
            assert [sequence.row(slot).done for slot in slots] == [0, 0]
        backend.advance([(sequence, slots)], pair.config.num_layers)
        found.append(contents(sequence, pair.config.num_layers))
    assert found[0] == found[1]


def test_graphs_are_made_on_the_backends_device(
    fake: FakeDriver, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever is torch's current one: a graph is of the context that it is made in."""
    pair = Pair(emulated(fake), rng)
    entered: list[Any] = []

    @contextmanager
    def watched(device: Any) -> Iterator[None]:
        before = len(fake.log())
        yield
        entered.append((device, "cuGraphCreate" in fake.called(before)))

    monkeypatch.setattr(cuda_repeats, "current", watched)
    sequence = begun(pair.whole, pair)
    for _ in range(ENOUGH):
        again(pair.whole, sequence)
    assert entered == [(torch.device("cpu"), True)]


def test_emulated_drivers_without_conditional_nodes(fake: FakeDriver, rng: np.random.Generator) -> None:
    fake.reset(version=12030)
    pair = Pair(emulated(fake), rng)
    assert "conditional" in (pair.whole.graphs_missing or "")
    sequence = begun(pair.whole, pair)
    for _ in range(ENOUGH + 1):
        again(pair.whole, sequence)
    assert graphs_of(pair.whole) == 0
    assert "cuGraphCreate" not in fake.called()


def test_heads_and_blocks_are_of_one_backend(fake: FakeDriver, rng: np.random.Generator) -> None:
    """Their launches are over its arrays, so another one for the very same model has no use for them."""
    pair = Pair(emulated(fake), rng, "tiles", "int8")
    layers = (1, pair.config.num_layers)
    head = pair.whole.draft_head(None, np.arange(9))
    drafter = pair.whole.drafter(random_parts(pair.config, layers, rng))
    for backend, fits in ((pair.whole, True), (pair.steps, False)):
        sequence = begun(backend, pair, layers)
        slots = sequence.append([1, 2])
        backend.advance([(sequence, slots[:1])], pair.config.num_layers)
        call = ChainCall(sequence, drafter.column(64, "bf16"), 1, 0.0, Sampling())
        with nullcontext() if fits else pytest.raises(ConfigurationError, match="this backend's drafter"):
            backend.draft_chains(drafter, [call])
        with nullcontext() if fits else pytest.raises(ConfigurationError, match="this backend's draft_head"):
            backend.logits([(sequence, slots[:1])], head)


def test_what_heads_make_of_states(place: Place, rng: np.random.Generator) -> None:
    """Tokens, drawn and greedy, drafts and their shares, logits: of other states each time."""
    pair = Pair(place, rng, "tiles", "int8")
    vocabulary = np.sort(rng.permutation(pair.config.vocab_size)[: pair.config.vocab_size // 2])
    texts = rng.integers(0, pair.config.vocab_size, (8, 3)).tolist()
    options = [
        [Sampling(temperature=float(rng.uniform(0.5, 9)), seed=int(rng.integers(2**62))) for _ in range(3)]
        for _ in texts
    ]

    def run(backend: CudaBackend) -> tuple[list[list[Any]], list[bool]]:
        head = backend.draft_head(None, vocabulary, "Q4_1")
        sequence, said = begun(backend, pair), []
        for text, sampling in zip(texts, options, strict=True):
            work = [(sequence, sequence.append(text))]
            backend.advance(work, pair.config.num_layers)
            drafts = [backend.draft(work, [Sampling()] * 3, one) for one in (None, head)]
            own = [backend.argmax(work), backend.sample(work, sampling), backend.logits(work)]
            said.append([array.tobytes() for array in (*own, *drafts[0], *drafts[1])])
        known = [*backend._head._repeats.known.values(), *head.repeats.known.values()]
        return said, [one.graph is not None for one in known]

    (whole, graphs), (steps, none) = run(pair.whole), run(pair.steps)
    assert whole == steps
    assert sorted(graphs) == [False, *[True] * 4], "logits by either head, tokens by either way; shares alone"
    assert none == [False] * 5
    assert all(len(set(column)) > 1 for column in zip(*whole, strict=True))


@pytest.mark.parametrize("tree", [False, True])
def test_drafts_of_blocks(place: Place, rng: np.random.Generator, tree: bool) -> None:
    """Chains or trees behind a text that grows; rows of a column are one launch from some on."""
    pair = Pair(place, rng, "tiles", "int8")
    layers = (1, pair.config.num_layers)
    parts = random_parts(pair.config, layers, rng)
    more = rng.integers(0, pair.config.vocab_size, (8, 3)).tolist()

    def run(backend: CudaBackend) -> tuple[list[Any], Any, int]:
        drafter = backend.drafter(parts, "Q4_1")
        assert isinstance(drafter, CudaDrafter)
        sequence, column, said = begun(backend, pair, layers), drafter.column(64, "fp16", poison=True), []
        for own in more:
            slots = sequence.append(own)
            backend.advance([(sequence, slots[:-1])], pair.config.num_layers)
            if tree:
                call = TreeCall(sequence, column, nodes=64, depth=6, width=3, children=3, stop_below=0.0,
                                deepen_from=0.0, sampling=Sampling())  # fmt: skip
                said.append(backend.draft_trees(drafter, [call])[0])
            else:
                wanted = ChainCall(sequence, column, 4, 0.0, Sampling())
                said.append(backend.draft_chains(drafter, [wanted])[0])
        bits = column.cache.keys[: len(column.memory)].float().cpu().numpy().tobytes()
        return [*said, column.memory, bits], column.rows, len(backend._layers._courses)

    launched: list[str] = getattr(place.launcher, "launched", [])
    whole, rows, passes = run(pair.whole)
    kinds = len(rows.known) + passes
    one_by_one = launched.count("fill_paths")  # one of every pass and every row of a block
    graphs = {key for key, one in rows.known.items() if one.graph is not None}
    assert ("text", 2) in graphs, "all of a text but its newest row, together"
    assert max(sent for kind, sent in graphs if kind == "draft") >= (4 if tree else 1)
    steps, rows, _ = run(pair.steps)
    assert all(one.graph is None for one in rows.known.values())
    assert whole == steps
    assert len({str(one) for one in whole[:-2]}) > 1
    if place.device == "cpu":
        assert one_by_one <= ONE_BY_ONE * kinds
        assert launched.count("fill_paths") - one_by_one > ONE_BY_ONE * kinds, "the negative control"
