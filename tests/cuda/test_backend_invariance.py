"""Rows of the CUDA backend to the bit, whatever is beside them: the cases of test_batch_invariance.py."""

from __future__ import annotations

import pytest

from tests.engines import Engine, cuda_engines
from tests.exactness import test_batch_invariance as suite
from tests.exactness.test_batch_invariance import Case, test_accepted_branch_of_a_tree, test_after_rollback

__all__ = ["test_accepted_branch_of_a_tree", "test_after_rollback"]

FORMATS = [
    ("tiles-short", "bf16", "bf16"),
    *(
        pytest.param(("tiles-window", weights, cache), marks=pytest.mark.slow)
        for weights, cache in (("int8", "fp16"), ("int4", "bf16"))
    ),
]


@pytest.fixture(scope="module", params=FORMATS, ids="-".join)
def case(request: pytest.FixtureRequest, engine: Engine) -> Case:
    return Case(engine, *request.param)


@pytest.fixture(scope="module", params=cuda_engines())
def engine(request: pytest.FixtureRequest) -> Engine:
    return request.param


@pytest.mark.parametrize("rows", [2, 9, 64])
def test_number_of_rows(case: Case, rows: int) -> None:
    suite.test_number_of_rows(case, rows)


def test_company_of_other_sequences(case: Case) -> None:
    suite.test_company_of_other_sequences(case)


def test_head_in_a_batch(case: Case) -> None:
    suite.test_head_in_a_batch(case)


@pytest.mark.slow
def test_prompt_in_chunks_and_layers(case: Case) -> None:
    suite.test_prompt_in_chunks_and_layers(case)


@pytest.mark.slow
def test_order_and_subset_of_rows(case: Case) -> None:
    suite.test_order_and_subset_of_rows(case)
