"""What is planted: one cycle of all tokens, and guesses that get better."""

from __future__ import annotations

import numpy as np
import pytest

from specee.bench.planted_truth import planted_truth
from specee.errors import ConfigurationError

VOCAB = 4000


def test_a_text_repeats_nothing_before_it_has_had_all_tokens() -> None:
    truth = planted_truth(VOCAB, (0.5,), seed=1)
    text = truth.text(VOCAB - 7, VOCAB)
    assert sorted(text) == list(range(VOCAB))
    assert truth.after[text[:-1]].tolist() == text[1:]


def test_guesses_get_better_as_they_are_planted() -> None:
    right = (0.3, 0.8)
    truth = planted_truth(VOCAB, right, seed=2, bluffs=0.25)
    good = truth.guesses == truth.after
    assert good.shape == (3, VOCAB)
    assert good[2].all()
    assert (good[0] <= good[1]).all()
    stages = truth.first_right(range(VOCAB))
    for stage, share in enumerate(right):
        assert good[stage].mean() == pytest.approx(share, abs=0.03)
        assert np.mean(np.array(stages) <= stage) == good[stage].mean()
        wrong = truth.guesses[stage][~good[stage]]
        assert np.mean(wrong < VOCAB) == pytest.approx(0.25, abs=0.05)


def test_the_seed_decides() -> None:
    one, same, other = (planted_truth(VOCAB, (0.5,), seed) for seed in (3, 3, 4))
    assert np.array_equal(one.guesses, same.guesses)
    assert not np.array_equal(one.guesses, other.guesses)


@pytest.mark.parametrize("right", [(), (0.5, 0.4), (-0.1,), (0.5, 1.1)])
def test_shares_that_make_no_sense_are_refused(right: tuple[float, ...]) -> None:
    with pytest.raises(ConfigurationError, match="ascending"):
        planted_truth(VOCAB, right, seed=0)
