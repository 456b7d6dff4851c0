"""The suites of every backend on the CUDA backend: over the emulator, and on a device where there is one.

Tests are those of tests/exactness, at shapes that the kernels take.
"""

from __future__ import annotations

import pytest

from tests.engines import Engine, cuda_engines
from tests.exactness.test_conformance import (
    check_against_oracle,
    test_a_foreign_sequence_is_refused,
    test_a_penalty_counts_when_greedy,
    test_a_penalty_looks_at_the_path_of_its_row,
    test_branches_are_rows_on_top,
    test_commit_compacts_a_branch,
    test_commit_of_nothing_drops_all,
    test_equal_logits_give_the_lowest_id,
    test_hidden_of_pending_and_speculative_rows_stays,
    test_hidden_of_rows_named_last,
    test_prune_takes_descendants,
    test_results_follow_the_order_of_work,
    test_rollback_drops_positions_and_branches,
    test_rollback_leaves_no_trace,
    test_rows_and_frontier_follow_a_partial_advance,
    test_sampling_is_the_shared_function,
    test_wrong_calls_raise_and_change_nothing,
)
from tests.exactness.test_slabs import test_incomplete_or_misfitting_weights_are_refused

pytestmark = pytest.mark.parametrize("engine", cuda_engines())

__all__ = [
    "test_a_foreign_sequence_is_refused",
    "test_a_penalty_counts_when_greedy",
    "test_a_penalty_looks_at_the_path_of_its_row",
    "test_branches_are_rows_on_top",
    "test_commit_compacts_a_branch",
    "test_commit_of_nothing_drops_all",
    "test_equal_logits_give_the_lowest_id",
    "test_hidden_of_pending_and_speculative_rows_stays",
    "test_hidden_of_rows_named_last",
    "test_incomplete_or_misfitting_weights_are_refused",
    "test_prune_takes_descendants",
    "test_results_follow_the_order_of_work",
    "test_rollback_drops_positions_and_branches",
    "test_rollback_leaves_no_trace",
    "test_rows_and_frontier_follow_a_partial_advance",
    "test_sampling_is_the_shared_function",
    "test_wrong_calls_raise_and_change_nothing",
]


@pytest.mark.parametrize(
    ("name", "weights", "cache"),
    [
        ("tiles", "bf16", "bf16"),
        ("tiles", "int8", "fp16"),
        ("tiles-biases", "bf16", "fp16"),
        ("tiles-biases", "int4", "bf16"),
        ("tiles-qk-norm", "bf16", "bf16"),
        ("tiles-window", "bf16", "bf16"),
        ("tiles-window", "int4", "fp16"),
        ("tiles-linear-rope", "int8", "bf16"),
    ],
)
def test_against_the_oracle(engine: Engine, name: str, weights: str, cache: str) -> None:
    check_against_oracle(engine, name, weights, cache)
