"""Random configurations and processors: every policy gives what plain decoding gives, greedy and seeded."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import LogitsProcessorList, StoppingCriteriaList

import specee
from specee.models.speculator import Speculator
from specee.policies.registry import policy_names
from tests.integrations.callbacks import EndAt, Noting
from tests.integrations.contract import POLICIES, SPECULATIVE, alike, padded, small
from tests.random_drafter import random_parts
from tests.random_exits import random_exits

# All there are, in settings that suit models of three layers.
EVERY = {
    "auto": "auto",
    "del": "del",
    "drafter": "drafter:threshold=0.0",
    "drafter-tree": "drafter-tree:measured=false,nodes=6",
    "layerskip": POLICIES[1],
    "layerskip-adaptive": "layerskip-adaptive:exit_layer=1",
    "prompt-lookup": SPECULATIVE,
    "specee": "specee:layers=all,threshold=0.1",
    "specee-tree": "specee-tree:measured=false,layers=all,threshold=0.1,nodes=6",
    "threshold": "threshold:exit_layer=1,threshold=0.2",
}
FAMILIES = ("llama", "mistral", "qwen2_sliding", "qwen3")
TOKENS = st.integers(3, 299)


@cache
def _model(family: str) -> Any:
    model, rng = small(family), np.random.default_rng(3)
    config = specee.load(model, threads=1).config
    fitted = Speculator(None, {}, random_parts(config, (2, 3), rng), random_exits(config, rng))
    return specee.accelerate(model, policy="autoregressive", threads=1, speculator=fitted)


def test_no_policy_is_left_out() -> None:
    assert {"autoregressive", *EVERY} == set(policy_names())


@st.composite
def configurations(draw: st.DrawFn) -> dict[str, Any]:
    """Options of generate in any combination; lists of token ids among them."""
    options: dict[str, Any] = {
        "repetition_penalty": st.sampled_from([0.7, 1.1, 1.8]),
        "no_repeat_ngram_size": st.integers(1, 4),
        "min_new_tokens": st.integers(1, 12),
        "bad_words_ids": st.lists(st.lists(TOKENS, min_size=1, max_size=2), min_size=1, max_size=6),
        "suppress_tokens": st.lists(TOKENS, max_size=50, min_size=1),
        "eos_token_id": st.lists(TOKENS, min_size=1, max_size=60, unique=True),
        "renormalize_logits": st.just(True),
    }
    sampled: dict[str, Any] = {
        "temperature": st.sampled_from([0.3, 0.9, 1.7]),
        "top_k": st.sampled_from([0, 2, 20]),
        "top_p": st.sampled_from([0.3, 0.9]),
        "min_p": st.sampled_from([0.02, 0.3]),
        "typical_p": st.sampled_from([0.4, 0.9]),
    }
    chosen = draw(st.fixed_dictionaries({}, optional=options))
    if draw(st.booleans()):
        chosen |= draw(st.fixed_dictionaries({}, optional=sampled)) | {"do_sample": True}
        chosen["specee_seed"] = draw(st.integers(0, 2**64 - 4))
    if draw(st.booleans()):
        chosen |= {"return_dict_in_generate": True, "output_scores": True}
    lengths = draw(st.lists(st.integers(1, 16), min_size=1, max_size=3))
    return {**padded(*lengths), "max_new_tokens": draw(st.integers(1, 24)), "pad_token_id": 0, **chosen}


def _run(family: str, policy: str, options: dict[str, Any], extra: tuple[bool, bool]) -> tuple[Any, Any]:
    processed, judged = [], []
    if extra[0]:
        options = {**options, "logits_processor": LogitsProcessorList([Noting(processed)])}
    if extra[1]:
        stop = EndAt(judged, list(range(5, 300, 17)))
        options = {**options, "stopping_criteria": StoppingCriteriaList([stop])}
    return _model(family).generate(**options, specee_policy=policy), (processed, judged)


REQUESTS = (
    st.sampled_from(FAMILIES),
    configurations(),
    st.tuples(st.booleans(), st.booleans()),
    st.lists(st.sampled_from(sorted(EVERY)), min_size=2, max_size=4, unique=True),
)


def _check(family: str, options: dict[str, Any], extra: tuple[bool, bool], policies: list[str]) -> None:
    plain, seen = _run(family, "autoregressive", options, extra)
    for policy in policies:
        output, noted = _run(family, EVERY[policy], options, extra)
        alike(plain, output)
        alike(seen, noted)
        if isinstance(output, torch.Tensor):
            assert torch.equal(plain, output)


@settings(max_examples=20, suppress_health_check=[HealthCheck.too_slow])
@given(*REQUESTS)
def test_every_policy_gives_what_plain_decoding_gives(
    family: str, options: dict[str, Any], extra: tuple[bool, bool], policies: list[str]
) -> None:
    _check(family, options, extra, policies)


@pytest.mark.slow
@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(*REQUESTS)
def test_every_policy_gives_what_plain_decoding_gives_of_many(
    family: str, options: dict[str, Any], extra: tuple[bool, bool], policies: list[str]
) -> None:
    _check(family, options, extra, policies)


@settings(max_examples=8, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(FAMILIES), configurations(), st.tuples(st.booleans(), st.booleans()))
def test_greedy_configurations_are_those_of_stock(
    family: str, options: dict[str, Any], extra: tuple[bool, bool]
) -> None:
    options = {name: value for name, value in options.items() if name not in ("do_sample", "specee_seed")}
    ours, noted = _run(family, POLICIES[1], options, extra)
    model = small(family)
    processed, judged = [], []
    if extra[0]:
        options["logits_processor"] = LogitsProcessorList([Noting(processed)])
    if extra[1]:
        options["stopping_criteria"] = StoppingCriteriaList([EndAt(judged, list(range(5, 300, 17)))])
    alike(model.generate(**options), ours)
    alike((processed, judged), noted)
