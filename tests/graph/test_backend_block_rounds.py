"""Rounds with chains of a drafter block in one launch: what steps say, states and columns included."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from specee.backends.cuda import CudaBackend  # noqa: E402
from specee.backends.cuda_drafter import CudaDrafter  # noqa: E402
from specee.backends.plain_copies import CopiedText  # noqa: E402
from specee.backends.protocol import CopyCall, LayerChainCall, RoundCall, RoundTurn, TreeCall  # noqa: E402
from specee.drafting import DraftHeads  # noqa: E402
from specee.engine import Generation, Request, reserve  # noqa: E402
from specee.errors import ConfigurationError, OutOfMemoryError, RowError  # noqa: E402
from specee.models.speculator import Speculator  # noqa: E402
from specee.policies import Policy  # noqa: E402
from specee.policies.auto import Auto  # noqa: E402
from specee.policies.drafter import Drafter as FittedBlock  # noqa: E402
from specee.types import Sampling  # noqa: E402
from tests.graph.block_pair import Blocks, nearly_right, right  # noqa: E402
from tests.graph.fake_driver import FakeDriver  # noqa: E402
from tests.graph.place import Place, emulated  # noqa: E402
from tests.graph.round_pair import CAPACITY, GREEDY, Pair  # noqa: E402
from tests.random_drafter import random_parts  # noqa: E402

COPY_IN, LAUNCH = "cuMemcpyHtoDAsync_v2", "cuGraphLaunch"
ONCE = [COPY_IN, COPY_IN, LAUNCH, "cuMemcpyDtoHAsync_v2", "cuStreamSynchronize"]


@pytest.mark.parametrize(
    ("shape", "weights", "stored", "plain"),
    [
        ("tiles", "bf16", "Q8_0", False),
        ("tiles-window", "bf16", "Q4_1", True),
        ("tiles-biases", "int8", "Q4_1", False),
        ("tiles-qk-norm", "int4", "Q8_0", True),
    ],
)
def test_random_blocks(
    place: Place, rng: np.random.Generator, shape: str, weights: str, stored: str, plain: bool
) -> None:
    """Drafts that are wrong, mostly; one text is sampled."""
    pair = Pair(place, rng, shape, weights)
    parts = random_parts(pair.config, (1, pair.config.num_layers), rng, plain=plain)
    sampled = Sampling(temperature=0.8, seed=int(rng.integers(2**63)) * 2 + 1)
    blocks = Blocks(pair, parts, stored, samplings=[GREEDY, sampled])
    said = blocks.both(lambda *one: blocks.rounds(*one, 6, (4, 2)))
    assert [[len(text.confidences) for text in turn] for turn in said] == [[4, 2]] * 6
    assert pair.taken == 5, "a round is recorded when it comes again"
    assert pair.whole.graphs_missing is None


@pytest.mark.parametrize("heads", ["whole", "some", "quantised"])
@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_blocks_that_are_right(place: Place, rng: np.random.Generator, heads: str, noise: float) -> None:
    """Accepted drafts are text that the block has not seen in the round behind them."""
    pair = Pair(place, rng, "tiles", "bf16")
    parts = nearly_right(pair, rng, noise)
    vocabulary = np.sort(rng.permutation(pair.config.vocab_size)[: pair.config.vocab_size * 3 // 4])
    head = {"whole": None, "some": (None, vocabulary), "quantised": (None, None, "Q8_0")}[heads]
    blocks = Blocks(pair, parts, head=head)
    said = blocks.both(lambda *one: blocks.rounds(*one, 7, (3, 2)))
    assert pair.taken == 6
    assert any(text.accepted for turn in said[:-1] for text in turn)


def test_other_states_make_other_drafts(place: Place, rng: np.random.Generator) -> None:
    """The negative control: what a round drafts comes from the states that were kept."""
    pair = Pair(place, rng, "tiles")
    blocks = Blocks(pair, random_parts(pair.config, (1, pair.config.num_layers), rng))
    shares = []
    for scale in (1.0, -3.0):
        sequences = blocks.begin(pair.whole)
        blocks.rounds(pair.whole, sequences, 3)
        before = pair.taken
        for one in sequences:
            row = one.find(one.length - 2)
            row.kept = {layer: scale * state for layer, state in row.kept.items()}
        row = sequences[0].find(sequences[0].length - 2)
        row.kept = {layer: state + (scale == 1.0) for layer, state in row.kept.items()}
        shares.append(blocks.rounds(pair.whole, sequences, 1)[0].texts[0].confidences)
        assert pair.taken == before + 1
    assert shares[0] != shares[1]


def test_emulated_rounds_are_launched_once(fake: FakeDriver, rng: np.random.Generator) -> None:
    pair = Pair(emulated(fake), rng, "tiles")
    blocks = Blocks(pair, nearly_right(pair, rng, 0.1))
    sequences = blocks.begin(pair.whole)
    blocks.rounds(pair.whole, sequences, 2)
    assert pair.taken == 1
    before, kernels = len(fake.log()), len(pair.place.launcher.launched)
    blocks.rounds(pair.whole, sequences, 3, (2, 3))
    assert [call for call in fake.called(before) if call != "cuCtxSetCurrent"] == ONCE * 3
    assert pair.place.launcher.launched[kernels:] == []


def test_chains_that_end(place: Place, rng: np.random.Generator) -> None:
    """Behind a draft that is not sure, at tokens that end a text, and with as many as it may be given."""
    blocks, _ = right(place, rng)
    said = blocks.both(lambda *one: blocks.rounds(*one, 4, floor=2.0))
    assert {len(text.confidences) for turn in said for text in turn} == {1}
    said = blocks.both(lambda *one: blocks.rounds(*one, 9, remaining=14))
    assert [len(text.tokens) for turn in said for text in turn] == [4, 4] * 3 + [2, 2]


def test_chains_end_with_the_text(place: Place, rng: np.random.Generator) -> None:
    """At an end that is a draft of the third chain for the first time."""
    for _ in range(50):
        blocks, said = right(place, rng)
        seen = {token for tokens in said[:4] for token in tokens} | {tokens[0] for tokens in said[4:6]}
        blocks.ends = [token for token in said[4][1:3] if token not in seen][:1]
        if blocks.ends:
            break
    assert blocks.ends, "fifty models repeat themselves"
    said = blocks.both(lambda *one: blocks.rounds(*one, 4))
    assert blocks.pair.taken == 2
    assert len(said) == 3
    ended = next(text for text in said[-1] if text.tokens[-1] == blocks.ends[0])
    assert len(ended.accepted) == len(ended.tokens) == len(ended.confidences) < 4


def test_what_goes_step_by_step_in_between(place: Place, rng: np.random.Generator) -> None:
    """Rounds go on behind it: with text that is too long for one, taken back, or drafted for some alone."""
    pair = Pair(place, rng, "tiles")
    blocks = Blocks(pair, nearly_right(pair, rng, 0.2))
    counts: list[list[int]] = []

    def rounds(backend: CudaBackend, sequences: list[Any]) -> list[RoundTurn]:
        found, taken = blocks.rounds(backend, sequences, 3), [backend._rounds.taken]

        def further(turns: list[RoundTurn]) -> None:
            found.extend(turns)
            taken.append(backend._rounds.taken)

        further(blocks.rounds(backend, sequences, 1, (0, 2)))
        further(blocks.rounds(backend, sequences, 1))
        for one in sequences:
            slots = one.append(range(17))
            backend.advance([(one, [slots[0] - 1, *slots[:-1]])], pair.config.num_layers)
        further(blocks.rounds(backend, sequences, 1))
        for one in sequences:
            one.rollback(4)
            one.append([2])
        further(blocks.rounds(backend, sequences, 2))
        for one in sequences:
            one.keep(blocks.layers(), CAPACITY)
        further(blocks.rounds(backend, sequences, 1))
        further(blocks.rounds(backend, sequences, 1))
        counts.append(np.diff(taken).tolist())
        return found

    blocks.both(rounds)
    # Without states of the newest positions there is no draft at all; the text goes on.
    assert counts == [[0, 1, 0, 2, 0, 1], [0] * 6]


def test_copies_come_first(place: Place, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the text offers some; where not, the round is one launch."""
    blocks, _ = right(place, rng)
    pair = blocks.pair
    offers: list[list[int]] = []
    monkeypatch.setattr(CopiedText, "lookup", lambda _, most: (offers[0][:most], 0.5))

    def rounds(backend: CudaBackend, sequences: list[Any]) -> list[RoundTurn]:
        found, indices = [], [backend.copies(3, 1) for _ in sequences]
        for own in ([], [], [], [5, 6], [], [6, 5], []):
            offers[:] = [own]
            calls = [
                call._replace(copies=CopyCall(index, 2, 0.0))
                for call, index in zip(blocks.calls(sequences, (2, 2)), indices, strict=True)
            ]
            found.append(blocks.round(backend, calls))
        return found

    said = blocks.both(rounds)
    assert [[text.copied for text in turn] for turn in said] == [
        [copied] * 2 for copied in (0, 0, 0, 1, 0, 1, 0)
    ]
    assert pair.taken == 5, "copies are verified in one launch when they come again, too"


def test_copies_come_before_whatever_else(
    place: Place, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What would be drafted without them is none of the launch's business, but has to be allowed."""
    pair = Pair(place, rng, "tiles")
    blocks = Blocks(pair, nearly_right(pair, rng, 0.2))
    monkeypatch.setattr(CopiedText, "lookup", lambda _, most: ([5, 6][:most], 0.5))

    def instead(sequences: list[Any], drafts: Any) -> list[RoundCall]:
        return [
            RoundCall(one, GREEDY, (), 99, drafts(one, column), CopyCall(pair.whole.copies(3, 1), 2, 0.0))
            for one, column in zip(sequences, blocks.columns, strict=True)
        ]

    def tree(sequence: Any, column: Any) -> TreeCall:
        return TreeCall(sequence, column, 4, 2, 2, 2, 0.0, 0.0, GREEDY)

    def rounds(backend: CudaBackend, sequences: list[Any]) -> list[RoundTurn]:
        return [blocks.round(backend, instead(sequences, tree)) for _ in range(4)]

    assert all(text.copied for turn in blocks.both(rounds) for text in turn)
    assert pair.taken == 3
    sequences = blocks.begin(pair.whole)
    rounds(pair.whole, sequences)
    before = pair.taken
    wrong = instead(sequences, lambda one, _: LayerChainCall(one, 0, None, 2, 0.0, GREEDY))
    with pytest.raises(RowError, match="cannot draft at layer 0"):
        blocks.round(pair.whole, wrong)
    with pytest.raises(ConfigurationError, match="a round with drafts needs a drafter"):
        pair.whole.run_rounds(instead(sequences, tree))
    assert pair.taken == before
    rounds(pair.whole, sequences)
    assert pair.taken == before + 4


def test_states_are_copies_of_their_rows_alone(
    place: Place, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In rounds with room for four drafts; where there is no memory for them, nothing is booked."""
    blocks, _ = right(place, rng)
    pair = blocks.pair
    expected = [turn.texts for turn in blocks.rounds(pair.steps, blocks.begin(pair.steps), 6)]
    sequences, columns = blocks.begin(pair.whole), blocks.columns
    found = [turn.texts for turn in blocks.rounds(pair.whole, sequences, 3)]
    assert pair.taken == 2
    newest = sequences[0].find(sequences[0].length - 2)
    numbers = len(blocks.layers()) * 4 * pair.config.hidden_size  # of a newest row and three drafts
    assert {one.untyped_storage().nbytes() for one in newest.kept.values()} == {4 * numbers}

    def left() -> list[Any]:
        return [blocks.left(*one) for one in zip(sequences, columns, strict=True)]

    def short(_: Any) -> Any:
        raise torch.cuda.OutOfMemoryError("scripted")

    before = left()
    with monkeypatch.context() as patched:
        patched.setattr(torch.Tensor, "clone", short)
        with pytest.raises(OutOfMemoryError, match="hidden states of 8 rows after 3 layers do not fit"):
            blocks.rounds(pair.whole, sequences, 1)
    assert not pair.whole._kept, "rounds have made way"
    assert left() == before
    found += [turn.texts for turn in blocks.rounds(pair.whole, sequences, 3)]
    assert found == expected
    assert pair.taken == 2 + 2, "it comes twice again"


@pytest.mark.parametrize("count", [1, 5, 12])
def test_as_many_texts_as_there_may_be(place: Place, rng: np.random.Generator, count: int) -> None:
    """With columns and caches of their own lengths, states kept after layers of their own."""
    pair = Pair(place, rng, "tiles")
    pair.texts = [rng.integers(0, pair.config.vocab_size, 2 + at % 5).tolist() for at in range(count)]
    blocks = Blocks(pair, nearly_right(pair, rng, 0.1), samplings=[GREEDY] * count, uneven=True)
    blocks.both(lambda *one: blocks.rounds(*one, 5, [1 + at % 3 for at in range(count)]))
    assert pair.taken == 4


def test_heads_for_states_that_are_normed(place: Place, rng: np.random.Generator) -> None:
    """Such as those of plain blocks."""
    pair = Pair(place, rng, "tiles")
    blocks = Blocks(pair, random_parts(pair.config, (1, 3), rng, plain=True), normed=True)
    blocks.head = (None, np.arange(0, pair.config.vocab_size, 2), "Q8_0")
    blocks.both(lambda *one: blocks.rounds(*one, 4))
    assert pair.taken == 3


@pytest.mark.parametrize("greedy", [True, False])
def test_rounds_and_steps_in_any_order(place: Place, rng: np.random.Generator, greedy: bool) -> None:
    pair = Pair(place, rng, "tiles", "int8")
    blocks = Blocks(pair, random_parts(pair.config, (1, pair.config.num_layers), rng), "Q4_1")
    if not greedy:
        blocks.samplings = [Sampling(temperature=0.5, seed=int(rng.integers(2**62))) for _ in range(2)]
    moves = rng.choice(["chains", "longer", "plain", "rollback", "text", "forget"], 24).tolist()
    tokens = rng.integers(0, pair.config.vocab_size, (24, 3)).tolist()

    def rounds(backend: CudaBackend, sequences: list[Any]) -> list[RoundTurn]:
        found = []
        for move, own in zip(moves, tokens, strict=True):
            for one in sequences:
                if move == "rollback" or one.length > CAPACITY - 20:
                    one.rollback(min(one.length, 2 if move == "rollback" else one.length - 4))
                    one.append(own[:1])
                elif move == "text":
                    one.append(own)
                elif move == "forget":
                    one.keep(blocks.layers(), CAPACITY)
            lengths = {"plain": (0, 0), "longer": (6, 5)}.get(move, (2, 3))
            found += blocks.rounds(backend, sequences, 2, lengths)
        return found

    blocks.both(rounds)
    assert pair.taken > 0
    assert isinstance(blocks.drafter, CudaDrafter)


@pytest.mark.parametrize("kind", ["drafter", "auto"])
def test_the_engine_asks_for_them(place: Place, rng: np.random.Generator, kind: str) -> None:
    """Two texts, of which one ends before the other."""
    pair = Pair(place, rng, "tiles")
    vocabulary = np.sort(rng.permutation(pair.config.vocab_size)[: pair.config.vocab_size * 3 // 4])
    speculator = Speculator(vocabulary, drafter=nearly_right(pair, rng, 0.1))
    texts = []
    for backend in (pair.whole, pair.steps):
        policy: Policy = FittedBlock() if kind == "drafter" else Auto()
        requests = [Request(tuple(text), count) for text, count in zip(pair.texts, (36, 20), strict=True)]
        running = reserve(backend, requests)
        for _ in Generation(backend, running, policy, DraftHeads(backend, speculator)):
            pass
        texts.append([one.generated for one in running])
    assert texts[0] == texts[1]
    assert [len(text) for text in texts[0]] == [36, 20]
    if kind == "drafter":  # auto goes by what it measures
        assert pair.taken > 4
