"""The draft vocabulary: what it costs is weighed against what it covers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from specee.errors import CheckpointError
from specee.fitting import vocabulary
from specee.fitting.corpus import Text
from specee.fitting.vocabulary import Shares, choose
from specee.policies import Latency

SIZE = 40_000
# A head that takes as long as ten of the 30 layers; rows cost nothing more.
LATENCY = Latency((1, 18), (1e-4, 1e-4), (1e-3, 1e-3))
LAYERS = 30


def zipf(power: float) -> vocabulary.Tokens:
    """Counts of tokens whose ids say nothing of how frequent they are."""
    counts = np.maximum(1e8 / np.arange(1, SIZE + 1) ** power, 1).astype(np.int64)
    return np.random.default_rng(5).permutation(counts)


def whole(share: float) -> Shares:
    """Of a draft head that reads ``share`` of the model's when it has all tokens."""
    return Shares(0.1, share / SIZE)


def test_the_most_frequent_tokens_are_chosen_and_their_share_is_told() -> None:
    counts = zipf(1.2)
    chosen = choose(counts, counts, LATENCY, LAYERS, whole(1.0))
    assert chosen.ids.tolist() == sorted(chosen.ids.tolist())
    assert 2048 <= len(chosen.ids) < SIZE
    left_out = np.delete(counts, chosen.ids)
    assert counts[chosen.ids].min() >= left_out.max()
    assert chosen.coverage == pytest.approx(counts[chosen.ids].sum() / counts.sum())


def test_rows_that_cost_nothing_are_all_taken_and_dear_ones_are_few() -> None:
    counts = zipf(1.0)
    sizes = [
        len(choose(counts, counts, LATENCY, LAYERS, whole(share)).ids) for share in (0.0, 0.5, 2.0, 50.0)
    ]
    assert sizes[0] == SIZE
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) >= 3
    assert sizes[-1] == 2048


def test_the_choice_is_that_of_a_sum_by_hand() -> None:
    """Half of all covered drafts are right, the first costs its bytes and later ones half of that."""
    counts = zipf(1.1)
    shares = whole(0.7)
    chosen = choose(counts, counts, LATENCY, LAYERS, shares)
    ranked = np.sort(counts)[::-1]

    def worth(size: int) -> float:
        rate = 0.5 * ranked[:size].sum() / counts.sum()
        first = (shares.block + size * shares.row) * 1e-3
        step = LAYERS * 1e-4 + 1e-3
        return max(
            sum(rate**i for i in range(length + 1)) / (step + first * (1 + length) / 2)
            for length in range(1, 18)
        )

    sizes = [2048, 4096, 6144, 8192, 12288, 16384, 24576, 32768, SIZE]
    assert len(chosen.ids) == max(sizes, key=worth)


def test_what_held_out_texts_do_not_say_is_not_covered() -> None:
    fitted, held_out = np.zeros(SIZE, np.int64), np.zeros(SIZE, np.int64)
    fitted[:100] = 9
    held_out[[5, 39_999]] = 3, 1
    chosen = choose(fitted, held_out, LATENCY, LAYERS, whole(50.0))
    assert chosen.coverage == 0.75
    assert choose(fitted, np.zeros_like(held_out), LATENCY, LAYERS, whole(1.0)).coverage == 0


def test_small_vocabularies_are_taken_whole() -> None:
    counts = np.ones(300, np.int64)
    assert choose(counts, counts, LATENCY, LAYERS, Shares(0.1, 1.0)).ids.tolist() == list(range(300))


def test_only_what_the_model_wrote_counts() -> None:
    texts = [Text(np.array([7, 7, 1, 2, 2], np.int32), 2), Text(np.array([2, 1], np.int32), 1)]
    assert vocabulary.counted(texts, 8).tolist() == [0, 2, 2, 0, 0, 0, 0, 0]


def test_a_choice_is_kept_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    ids = np.array([1, 5, 9], np.int64)
    path = tmp_path / "ids.npy"
    vocabulary.write(path, ids)
    assert vocabulary.read(path).tolist() == [1, 5, 9]
    content = path.read_bytes()
    for damaged in (b"", content[:-1], content[:20]):
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"ids\.npy"):
            vocabulary.read(path)
