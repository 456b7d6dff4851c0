"""The default model in fp32 on real text: transformers' logits and, greedily, transformers' tokens."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import specee
from specee.integrations.transformers_model import to_transformers
from tests.exactness.test_against_transformers import LOGIT_TOLERANCE, check_greedy
from tests.exactness.texts import TEXTS

pytestmark = pytest.mark.model


@pytest.fixture(scope="module")
def ours() -> specee.Model:
    return specee.load(weights="fp32")


@pytest.fixture(scope="module")
def theirs(ours: specee.Model) -> Any:
    return to_transformers(ours.checkpoint, "fp32")


@pytest.mark.parametrize("name", TEXTS)
def test_every_logit(ours: specee.Model, theirs: Any, name: str) -> None:
    prompt = ours.tokenizer.encode(TEXTS[name])
    assert len(prompt) >= 200
    sequence = ours.backend.sequence(len(prompt))
    work = [(sequence, sequence.append(prompt))]
    ours.backend.advance(work, ours.config.num_layers)
    with torch.no_grad():
        wanted = theirs(torch.tensor([prompt])).logits[0].numpy()
    assert np.abs(ours.backend.logits(work) - wanted).max() <= LOGIT_TOLERANCE


@pytest.mark.parametrize("name", TEXTS)
def test_greedy_answer(ours: specee.Model, theirs: Any, name: str) -> None:
    prompt = ours.encode(TEXTS[name])
    text = ours.generate(np.array([prompt]), max_new_tokens=32, eos_token_id=[])[0]
    check_greedy(theirs, text, len(prompt))


@pytest.mark.parametrize("weights", ["auto", "bf16", "int8", "int4"])
def test_every_format_knows_paris(weights: Any) -> None:
    """A text whose next word is 2.5 logits ahead in fp32: a chat's first word may well be a near-tie."""
    answer = specee.load(weights=weights).generate_text(
        "The capital of France is", raw=True, max_new_tokens=3
    )
    assert "Paris" in answer
