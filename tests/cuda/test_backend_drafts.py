"""What drafts are made of on the CUDA backend: draft heads, kept states, scores, predictors, trees.

The cases are those of tests/exactness, called with shapes that the kernels take.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from specee.engine import Request
from specee.policies import make_policy
from specee.types import Sampling
from tests.chaos import Chaos
from tests.cuda.emulator import fresh_seed
from tests.engines import Engine, cuda_engines
from tests.exactness import test_asked_rows as asked
from tests.exactness import test_draft_heads as heads
from tests.exactness import test_early_exit as exits
from tests.exactness import test_kept_states as kept
from tests.exactness import test_shadow as shadows
from tests.exactness import test_speculation as speculation
from tests.exactness.test_frontier_fuzz import CAPACITY, Machine
from tests.random_model import SHAPES, random_model

pytestmark = pytest.mark.parametrize("engine", cuda_engines())
VERBS = ["append", "branch", "advance", "advance", "advance", "prune", "commit", "rollback"]
POLICIES = [
    "layerskip:exit_layer=1",
    "prompt-lookup:shortest_ngram=1",
    "drafter:threshold=0.0,speculation_length=3",
    "drafter-tree:measured=false,nodes=7,width=2,children=2",
    "specee:layers=all,threshold=0.0,speculation_length=3",
    speculation.PRUNED,
]
SUITES: list[Callable[..., None]] = [
    heads.test_kept_tokens_have_the_bits_of_the_whole_head,
    heads.test_an_adapter_is_a_residual_bottleneck,
    shadows.test_a_prompt_in_chunks,
    kept.test_keeping_changes_no_bit,
    exits.test_a_score_is_the_logit_of_the_whole_head,
    asked.test_answers_are_those_of_the_formula,
]


LONG = (shadows.test_a_prompt_in_chunks, kept.test_keeping_changes_no_bit)
CASES = [
    pytest.param(weights, suite, marks=[pytest.mark.slow] if weights == "int8" and suite in LONG else [])
    for weights in ("bf16", "int8")
    for suite in SUITES
]


@pytest.mark.parametrize(("weights", "suite"), CASES)
def test_suites(engine: Engine, suite: Callable[..., None], weights: str) -> None:
    suite(engine, "tiles-short", weights)


@pytest.mark.parametrize("confirm", [pytest.param(False, marks=pytest.mark.slow), True])
def test_rows_leave_where_the_formula_says(engine: Engine, confirm: bool) -> None:
    exits.test_rows_leave_where_the_formula_says(engine, "tiles-short", "bf16", confirm)


def test_waiting_rows_catch_up_to_the_bit(engine: Engine) -> None:
    exits.test_waiting_rows_catch_up_to_the_bit(engine, "tiles-short", "bf16", 5)


@pytest.mark.parametrize(("weights", "cache"), [("bf16", "bf16"), ("int4", "fp16")])
def test_any_interleaving(engine: Engine, weights: str, cache: str) -> None:
    """The verbs in random order over two sequences, against bookkeeping and the naive oracle."""
    rng = np.random.default_rng(fresh_seed("steps"))
    model = random_model(SHAPES["tiles-window"], seed=7, kind=weights)
    machine = Machine(engine.load(model, weights), model, cache, 2)
    for _ in range(40):
        machine.step(str(rng.choice(VERBS)), int(rng.integers(2**32)))
    assert max(len(shadow.committed) for shadow in machine.shadows) <= CAPACITY
    machine.finish()


@pytest.mark.parametrize("weights", ["bf16", pytest.param("int8", marks=pytest.mark.slow)])
def test_any_policy_gives_what_plain_decoding_gives(engine: Engine, weights: str) -> None:
    """Two texts side by side, one greedy and one seeded, by policies that draft in every way."""
    rng = np.random.default_rng(fresh_seed("texts"))
    backend = engine.load(random_model(SHAPES["tiles-short"], seed=7, kind=weights), weights)
    fitted = speculation.fitted(backend)
    made = [
        Request(tuple(rng.integers(0, 9, 5).tolist()), 8, sampling, frozenset(), (), ())
        for sampling in (Sampling(), Sampling(0.8, seed=int(rng.integers(2**31))))
    ]
    plain = [speculation.run(backend, [request], make_policy("autoregressive"))[0][0] for request in made]
    chaos = Chaos(int(rng.integers(2**31)), grown=True, adapted=True)
    assert speculation.run(backend, made, chaos, [one.tokens for one in plain], fitted)[0] == plain
    for policy in POLICIES:
        assert speculation.run(backend, made, make_policy(policy), (), fitted)[0] == plain, policy
