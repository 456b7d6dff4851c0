"""lm-evaluation-harness, from its package and unchanged, grades an accelerated model as it grades stock."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch

import specee
from specee.bench.harness import run
from specee.integrations.transformers_model import to_transformers
from specee.models.checkpoint import open_checkpoint
from tests.integrations.contract import counting_loops

pytestmark = [pytest.mark.slow, pytest.mark.model]


@pytest.fixture(scope="module")
def words() -> Any:
    """The default model's tokenizer; without the harness there is nothing to test."""
    if os.environ.get("SPECEE_REQUIRE_HARNESS") != "1" and not run.is_installed():
        pytest.skip("lm-eval is not installed; the stage lm-evaluation-harness of scripts/test --full has it")
    return specee.as_tokenizer(specee.load())


@pytest.fixture(scope="module")
def model() -> Any:
    torch.set_num_threads(2)  # of a model that is no tiny one
    yield to_transformers(open_checkpoint(), "fp32")
    torch.set_num_threads(1)


@pytest.mark.parametrize("rows", [1, 6])
def test_answers_and_grades_are_those_of_stock(words: Any, model: Any, rows: int) -> None:
    with counting_loops() as loops:
        stock = run.evaluate(model, words, rows=rows)
    assert loops[0] >= 16 // rows, "the harness does not come to the loop that is replaced"
    assert stock.exact_match > 0.5, "answers that are mostly wrong compare nothing"
    assert len(set(stock.answers)) > 10
    with specee.accelerate(model, weights="fp32"), counting_loops() as loops:
        ours = run.evaluate(model, words, rows=rows)
    assert ours == stock
    assert loops == [0]


def test_another_model_is_graded_otherwise(words: Any, model: Any) -> None:
    """Negative control: weights that are damaged show in the answers."""
    layer = model.model.layers[-1].mlp.down_proj.weight
    kept = layer.detach().clone()
    with specee.accelerate(model, weights="fp32"):
        before = run.evaluate(model, words)
        with torch.no_grad():
            layer.mul_(-3)
        after = run.evaluate(model, words)
    with torch.no_grad():
        layer.copy_(kept)
    assert before.answers != after.answers
