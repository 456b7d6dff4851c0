"""Planted weights: the same for the same seed, and refused where there is no place for them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from specee.bench.cuda_planted_parts import planted_speculator  # noqa: E402
from specee.bench.cuda_planted_weights import Places, planted_weights  # noqa: E402
from specee.bench.cuda_shapes import LLAMA_2_7B, LLAMA_3_2_1B  # noqa: E402
from specee.bench.planted_truth import planted_truth  # noqa: E402
from specee.errors import ConfigurationError  # noqa: E402
from specee.types import ModelConfig  # noqa: E402
from tests.random_model import SHAPES  # noqa: E402

SMALL = SHAPES["tiles"]


def test_the_seed_decides() -> None:
    one, same, other = (planted_weights(SMALL, (1, 2), "cpu", seed) for seed in (3, 3, 4))
    truth = planted_truth(SMALL.vocab_size, (0.4, 0.8), seed=1)
    for made in (one, same, other):
        made.show(truth)
    assert one.weights.keys() == other.weights.keys()
    assert all(torch.equal(values, same.weights[key]) for key, values in one.weights.items())
    changed = {
        role
        for (role, layer), values in one.weights.items()
        if not torch.equal(values, other.weights[role, layer])
    }
    assert changed == {"embed", "head", "q", "k", "v", "o"}  # every feed-forward part ends a stage here


def test_places_do_not_overlap() -> None:
    for hidden, stages in ((64, 2), (64, 3), (4096, 3)):
        places = Places(hidden, stages)
        taken = [*(places.guess(stage) for stage in range(stages)), places.answer]
        numbers = [number for part in taken for number in range(hidden)[part]] + [places.one]
        assert len(numbers) == len(set(numbers)) == (stages + 1) * places.width + 1


def test_the_speculator_fits() -> None:
    made = planted_weights(SMALL, (1, 2), "cpu", 1)
    found = planted_speculator(made)
    assert found.drafter is not None
    assert found.exits is not None
    assert found.drafter.misfit(SMALL) is None
    assert found.exits.misfit(SMALL) is None
    assert np.isclose(found.exits.exits.sum(), 1)


@pytest.mark.parametrize(
    ("config", "layers", "why"),
    [
        (LLAMA_2_7B, (), "allowed are 1..31"),
        (LLAMA_2_7B, (8, 32), "allowed are 1..31"),
        (LLAMA_2_7B, (16, 8), "allowed are 1..31"),
        (LLAMA_3_2_1B, (8,), "a head of its own"),
        (replace(SMALL, mlp_bias=True), (1,), "without biases"),
        (replace(SMALL, intermediate_size=16), (1,), "21 of intermediate_size or more"),
    ],
)
def test_what_cannot_be_planted_is_refused(config: ModelConfig, layers: tuple[int, ...], why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        planted_weights(config, layers, "cpu", 1)
