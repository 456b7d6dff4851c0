"""What calibrations and predictors are made from, by hand: losses, scores and labels of single positions."""

from __future__ import annotations

import numpy as np
import pytest

import specee
from specee.backends.protocol import RankCall
from specee.drafting import DraftHeads
from specee.fitting.calibration import Calibrator
from specee.fitting.corpus import Text
from specee.fitting.drafter import Drafter
from specee.fitting.exit_samples import Sampler
from specee.fitting.frozen import read_frozen
from specee.models.speculator import Speculator
from tests.random_drafter import random_parts
from tests.random_exits import random_exits
from tests.tiny_models import tiny_folder

PROMPTS = [(5, 6, 7), (9, 8), (3, 4, 5, 6)]
TOKENS = 7


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> specee.Model:
    return specee.load(tiny_folder("llama", tmp_path_factory.mktemp("tiny"), seed=3), threads=1)


@pytest.fixture
def speculator(model: specee.Model) -> Speculator:
    rng = np.random.default_rng(2)
    config = model.config
    inner = config.intermediate_size
    parts = random_parts(config, (1, config.num_layers), rng, inner)
    return Speculator(None, {}, parts, random_exits(config, rng, candidates=16))


def test_losses_are_tokens_that_are_not_the_full_models(model: specee.Model, speculator: Speculator) -> None:
    calibrator = Calibrator(model.backend, speculator, frozenset(), TOKENS)
    assert calibrator.losses_of(PROMPTS, 1.0).tolist() == [0.0] * len(PROMPTS), "nothing leaves over one"
    found = calibrator.losses_of(PROMPTS, 0.0)
    assert found.max() > 0, "the control: leaving anywhere costs something"
    heads = DraftHeads(model.backend, speculator)
    model_with = specee.Model(model.checkpoint, model.backend, speculator=speculator)
    assert heads.exits is not None
    for prompt, loss in zip(PROMPTS, found, strict=True):
        policy = "specee:mode=approximate,threshold=0.0"
        (tokens,) = model_with.generate(
            [list(prompt)],
            max_new_tokens=TOKENS,
            do_sample=False,
            eos_token_id=[],
            policy=policy,
            return_dict=True,
        ).tokens
        wrong = 0
        for place, token in enumerate(tokens):
            before = [*prompt, *tokens[:place]]
            (right,) = model.generate(
                [before], max_new_tokens=1, do_sample=False, eos_token_id=[], return_dict=True
            ).tokens[0]
            wrong += token != right
        assert loss == np.float32(wrong / len(tokens))


def test_samples_are_what_a_checked_layer_sees(model: specee.Model, speculator: Speculator) -> None:
    """Scores, labels and candidates of every position, each by the engine from nothing."""
    assert speculator.drafter is not None
    backend, config = model.backend, model.config
    text = np.random.default_rng(7).integers(0, config.vocab_size, 12).astype(np.int32)
    import torch

    ids = torch.arange(config.vocab_size)
    frozen = read_frozen(model.checkpoint, backend.weights)
    sampler = Sampler(backend, frozen, Drafter.of(speculator.drafter, config), ids, 3)
    samples = sampler.samples([Text(text, 3)], 1000)
    slots = range(2, len(text) - 1)  # what follows them the model wrote, from position 3 on
    assert samples.scores.shape == (len(slots), config.num_layers - 1, 3)
    same = 0
    drafter = backend.drafter(speculator.drafter)
    for index, slot in enumerate(slots):
        state = backend.sequence(len(text))
        state.keep(range(1, config.num_layers + 1), len(text))
        state.append(text[: slot + 1].tolist())
        if slot:
            backend.advance([(state, range(slot))], config.num_layers)
        column = drafter.column(len(text), "fp32")
        ranked = backend.rank(drafter, [RankCall(state, column, slot)], 3)[0]
        backend.advance([(state, [slot])], config.num_layers)
        layers = range(1, config.num_layers + 1)
        tokens, _ = backend.shadow([(state, [slot])], layers)
        assert samples.right[index].tolist() == (tokens[0, :-1] == tokens[0, -1]).tolist()
        scores = backend.score([(state, [slot])], layers[:-1], np.array([ranked]))[0]
        # The drafter in training computes in bf16, so that near candidates may change places.
        same += bool(np.array_equal(samples.scores[index], scores))
        assert set(np.round(samples.scores[index, 0], 3)) & set(np.round(scores[0], 3))
    assert same >= len(slots) // 2
