"""The default model on real text: every policy gives the tokens of plain decoding, packed and in bf16.

A sample of what ``python -m bench.decode.lossless`` runs over hundreds of prompts.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import specee
from specee.models.checkpoint import open_checkpoint
from specee.models.speculator import Speculator
from specee.policies import policy_names
from tests.exactness.texts import TEXTS
from tests.random_drafter import random_parts
from tests.random_exits import random_exits

pytestmark = pytest.mark.model

TOKENS = 16
SETTINGS = {
    "auto": [""],
    "autoregressive": [""],
    "del": ["", ":faithful=true"],
    "layerskip": [":exit_layer=29,speculation_length=4", ":exit_layer=12,speculation_length=2"],
    "layerskip-adaptive": [":exit_layer=27"],
    "threshold": [":exit_layer=24,threshold=0.3"],
    "drafter": [":threshold=0.0"],
    "drafter-tree": ["", ":measured=false,nodes=24"],
    "specee": ["", ":layers=all,threshold=0.1"],
    "specee-tree": [":measured=false,nodes=8,layers=all,threshold=0.3"],
    "prompt-lookup": ["", ":speculation_length=11,shortest_ngram=1,longest=15"],
}
MODES: dict[str, dict[str, Any]] = {
    "greedy": {},
    "sampled": {"do_sample": True, "temperature": 0.8, "top_p": 0.95, "seed": 11},
    "penalised": {"repetition_penalty": 1.2, "stop_strings": [" the"]},
}


def test_no_policy_is_left_out() -> None:
    assert set(SETTINGS) == set(policy_names())


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("weights", ["packed", pytest.param("bf16", marks=pytest.mark.slow)])
def test_every_policy_gives_the_tokens_of_plain_decoding(weights: Any, mode: str) -> None:
    config, rng = open_checkpoint().config, np.random.default_rng(3)
    block, exits = random_parts(config, (12, 30), rng, inner=64), random_exits(config, rng, 4)
    model = specee.load(weights=weights, speculator=Speculator(None, {}, block, exits))
    prompts = [model.encode(text)[-40:] for text in TEXTS.values()]
    width = max(map(len, prompts))
    padded = [[0] * (width - len(prompt)) + prompt for prompt in prompts]
    mask = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    options = {"max_new_tokens": TOKENS, "return_dict": True, **MODES[mode]}
    plain = model.generate(padded, mask, **options).tokens
    accepted = 0
    for name, settings in SETTINGS.items():
        for setting in settings:
            if "faithful" in setting and mode != "greedy":
                continue  # it looks at all layers after each round, which takes long: once is enough
            together = model.generate(padded, mask, policy=name + setting, **options)
            assert together.tokens == plain, name + setting
            accepted += together.statistics.acceptance.accepted
            alone = model.generate([prompts[0]], policy=name + setting, **options)
            assert alone.tokens == plain[:1], name + setting
    assert accepted > TOKENS


@pytest.mark.parametrize("weights", ["packed", "bf16"])
def test_the_packaged_drafter_is_found_and_drafts_well(weights: Any) -> None:
    """Far better than chance, of which a speculator for another model would be."""
    model = specee.load(weights=weights, threads=2 if weights == "packed" else 1)
    options: dict[str, Any] = {"max_new_tokens": 48, "return_dict": True}
    drafted = accepted = 0
    for text in TEXTS.values():
        prompt = model.encode(text)[-160:]
        plain = model.generate([prompt], **options).tokens
        for policy in ("drafter:threshold=0.0", "drafter-tree", "auto"):
            result = model.generate([prompt], policy=policy, **options)
            assert result.tokens == plain
            if policy == "drafter:threshold=0.0":
                drafted += result.statistics.acceptance.drafted
                accepted += result.statistics.acceptance.accepted
    assert drafted > 100
    assert accepted > 0.15 * drafted
