"""Requests of all kinds from a seed: good ones, those that are refused, those whose callbacks end them."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from transformers import LogitsProcessorList, StoppingCriteriaList

from tests.integrations.callbacks import EndAt, Failing, Noting, StopAfter
from tests.integrations.contract import POLICIES, padded


class Cancelled(BaseException):
    """As KeyboardInterrupt: nobody's error."""


@dataclass(frozen=True)
class Mixed:
    """``make`` gives arguments of ``generate`` with callbacks of their own.

    ``error`` is what they raise, None of a good request.
    """

    make: Callable[[], dict[str, Any]]
    error: type[BaseException] | None = None


BAD: tuple[dict[str, Any], ...] = (
    {"max_new_tokens": -1},
    {"input_ids": torch.tensor([[5, 900]]), "attention_mask": None},
    {"temprature": 0.3},
    {"stop_strings": ["a"]},
    {"do_sample": True, "specee_seed": -1},
    {"do_sample": True, "specee_seed": [1] * 9},
    {"specee_policy": "fast"},
    {"repetition_penalty": 0.0},
    {"do_sample": False, "num_return_sequences": 2},
)
"""Arguments that are refused with a ``ValueError`` before anything is computed."""


def mixed(seed: int, count: int) -> list[Mixed]:
    """Three quarters of them good, some of which their users cut short; the others are refused or fail."""
    chance = random.Random(seed)
    return [_one(chance) for _ in range(count)]


def _one(chance: random.Random) -> Mixed:
    lengths = [chance.randint(1, 20) for _ in range(chance.randint(1, 3))]
    options: dict[str, Any] = {
        **padded(*lengths),
        "max_new_tokens": chance.randint(1, 25),
        "pad_token_id": 0,
        "specee_policy": chance.choice(POLICIES),
    }
    if chance.random() < 0.5:
        seed = chance.randrange(2**60)
        options |= {"do_sample": True, "specee_seed": seed, "top_k": chance.choice([0, 3, 50])}
    if chance.random() < 0.2:
        options["repetition_penalty"] = 1.3
    if chance.random() < 0.3:
        options["eos_token_id"] = chance.sample(range(3, 300), 12)
    kind = chance.randrange(8)
    if kind == 0:
        return _good(options, logits_processor=lambda: LogitsProcessorList([Noting([])]))
    if kind == 1:
        ends = chance.sample(range(3, 300), 20)
        return _good(options, stopping_criteria=lambda: StoppingCriteriaList([EndAt([], ends)]))
    if kind == 2:
        after = chance.randint(1, 6)  # the user has seen enough
        return _good(options, stopping_criteria=lambda: StoppingCriteriaList([StopAfter(after)]))
    if kind == 3:
        bad = chance.choice(BAD)
        return Mixed(lambda: {**options, **bad}, ValueError)
    if kind == 4:
        error = chance.choice([KeyError("mine"), Cancelled(), KeyboardInterrupt()])
        at = max(lengths) + chance.randrange(options["max_new_tokens"])
        options.pop("eos_token_id", None)  # the text shall come so far
        return Mixed(
            lambda: {**options, "logits_processor": LogitsProcessorList([Failing(at, error)])}, type(error)
        )
    return _good(options)


def _good(options: dict[str, Any], **callbacks: Callable[[], Any]) -> Mixed:
    return Mixed(lambda: {**options, **{name: make() for name, make in callbacks.items()}})
