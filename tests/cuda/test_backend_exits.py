"""Early exits of the CUDA backend, step by step: the suites of every backend, at shapes that kernels take."""

from __future__ import annotations

import pytest

from tests.engines import Engine, cuda_engines
from tests.exactness import test_asked_rows, test_early_exit
from tests.exactness.test_asked_rows import (
    test_a_row_is_asked_about_by_itself,
    test_asking_about_no_row_says_nothing,
    test_what_cannot_be_asked_is_refused,
)
from tests.exactness.test_early_exit import (
    test_equal_scores_are_equal,
    test_wrong_exits_are_refused,
)

pytestmark = pytest.mark.parametrize("engine", cuda_engines())
KINDS = [("tiles", "bf16"), ("tiles-biases", "int8"), ("tiles-qk-norm", "int4")]

__all__ = [
    "test_a_row_is_asked_about_by_itself",
    "test_asking_about_no_row_says_nothing",
    "test_equal_scores_are_equal",
    "test_what_cannot_be_asked_is_refused",
    "test_wrong_exits_are_refused",
]


@pytest.mark.parametrize(("name", "kind"), KINDS)
def test_a_score_is_the_logit_of_the_whole_head(engine: Engine, name: str, kind: str) -> None:
    test_early_exit.test_a_score_is_the_logit_of_the_whole_head(engine, name, kind)


@pytest.mark.parametrize(("name", "kind"), KINDS)
@pytest.mark.parametrize("confirm", [False, True])
def test_rows_leave_where_the_formula_says(engine: Engine, name: str, kind: str, confirm: bool) -> None:
    test_early_exit.test_rows_leave_where_the_formula_says(engine, name, kind, confirm=confirm)


@pytest.mark.parametrize(("name", "kind"), KINDS)
def test_waiting_rows_catch_up_to_the_bit(engine: Engine, name: str, kind: str) -> None:
    test_early_exit.test_waiting_rows_catch_up_to_the_bit(engine, name, kind, 5)


@pytest.mark.parametrize(("name", "kind"), KINDS)
def test_answers_are_those_of_the_formula(engine: Engine, name: str, kind: str) -> None:
    test_asked_rows.test_answers_are_those_of_the_formula(engine, name, kind)
