"""A conversation computes what is new, and says what it would say without a memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import specee
from specee.integrations.drop_in import accelerated
from tests.integrations.contract import POLICIES, prompt, small
from tests.tiny_models import random_prompt


def _turns(model: Any, **options: Any) -> list[tuple[torch.Tensor, int]]:
    """Five turns, the third after a change of the past; and how much of each was there already."""
    text, found = prompt(9), []
    for turn in range(5):
        output = model.generate(text, max_new_tokens=7, **options)
        found.append((output, accelerated.accelerated(model).kept.reused))
        kept = output[:, :-5] if turn == 1 else output
        text = torch.cat([kept, torch.tensor([random_prompt(40 + turn, 4)])], dim=1)
    return found


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("family", ["llama", "mistral", "qwen3_sliding"])
def test_turns_reuse_what_they_have_in_common(family: str, policy: str) -> None:
    model = small(family)
    specee.accelerate(model, policy=policy, threads=1)
    found = _turns(model)
    widths = [output.shape[1] - 7 for output, _ in found]
    # All of the turn before but its newest token, whose row need not be there; after the change less.
    assert found[0][1] == 0
    for turn in (1, 3, 4):
        assert found[turn][1] in (widths[turn] - 4, widths[turn] - 5), turn
    assert widths[1] < found[2][1] <= widths[2] - 4
    for output, _ in found:
        specee.accelerate(model, policy=policy, threads=1)  # forgets
        alone = model.generate(output[:, :-7], max_new_tokens=7)
        assert accelerated.accelerated(model).kept.reused == 0
        assert torch.equal(alone, output)


def test_turns_are_those_of_stock() -> None:
    model = small("qwen2_sliding")
    text = prompt(9)
    specee.accelerate(model, policy=POLICIES[1], threads=1)
    for turn in range(4):
        ours = model.generate(text, max_new_tokens=7)
        specee_class = type(model)
        model.__class__ = specee_class.specee_base
        assert torch.equal(model.generate(text, max_new_tokens=7), ours)
        model.__class__ = specee_class
        text = torch.cat([ours, torch.tensor([random_prompt(40 + turn, 4)])], dim=1)


def test_another_text_reuses_nothing_and_new_weights_neither() -> None:
    model = small("llama")
    specee.accelerate(model, policy="autoregressive", threads=1)
    owner = accelerated.accelerated(model)
    first = model.generate(prompt(9), max_new_tokens=7)
    model.generate(torch.tensor([random_prompt(8, 9)]), max_new_tokens=7)
    assert owner.kept.reused == 0
    assert torch.equal(model.generate(prompt(9), max_new_tokens=7), first)
    model.load_state_dict(small("llama", seed=5).state_dict())
    second = model.generate(first, max_new_tokens=7)
    assert owner.kept.reused == 0
    specee.restore(model)
    assert torch.equal(model.generate(first, max_new_tokens=7), second)


def test_a_longer_text_than_there_is_room_for_begins_anew() -> None:
    model = small("llama", max_position_embeddings=4096)
    specee.accelerate(model, policy="autoregressive", threads=1)
    owner = accelerated.accelerated(model)
    text = prompt(9)
    model.generate(text, max_new_tokens=7)
    long = torch.cat([text, torch.tensor([random_prompt(3, 1100)])], dim=1)
    ours = model.generate(long, max_new_tokens=7)
    assert owner.kept.reused == 0
    specee.restore(model)
    assert torch.equal(model.generate(long, max_new_tokens=7), ours)
