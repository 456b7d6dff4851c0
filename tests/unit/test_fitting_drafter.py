"""The unrolled drafter against one that goes a row at a time, as it is used."""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor

from specee.backends.reference_math import attend, inverse_frequencies, rms_norm, rotate, swiglu
from specee.fitting.drafter import Drafter, Shape
from specee.types import ModelConfig, RopeConfig

LENGTH = 9


def config(rng: random.Random) -> ModelConfig:
    kv_heads = rng.choice([1, 2])
    return ModelConfig(
        "llama", 32, 24, 40, 4, kv_heads * rng.choice([1, 3]), kv_heads, 8, 64, 1e-5,
        RopeConfig(theta=100.0), (0,) * 4, tied_head=True,
    )  # fmt: skip


class Plain:
    """One row at a time: keys and values of true rows, then of the drafter's own."""

    def __init__(self, drafter: Drafter) -> None:
        self.drafter, self.config = drafter, drafter.shape.config
        self.speeds = inverse_frequencies(self.config.rope, self.config.head_dim)

    def row(
        self, embedding: Tensor, before: Tensor, position: int, memory: list[tuple[Tensor, Tensor]]
    ) -> Tensor:
        made, eps, dim = self.drafter, self.config.norm_eps, self.config.head_dim
        both = (
            rms_norm(embedding, made.embed_norm.weight, eps),
            rms_norm(before, made.fused_norm.weight, eps),
        )
        x = made.fc.weight @ torch.cat(both)
        normed = rms_norm(x, made.attn_norm.weight, eps)
        q, k, v = ((part.weight @ normed).view(-1, dim) for part in (made.q, made.k, made.v))
        memory.append((rotate(k, position, self.speeds), v))
        keys, values = (torch.stack(part) for part in zip(*memory, strict=True))
        x = x + made.o.weight @ attend(rotate(q, position, self.speeds), keys, values)
        normed = rms_norm(x, made.mlp_norm.weight, eps)
        return x + made.down.weight @ swiglu(made.gate.weight @ normed, made.up.weight @ normed)


@pytest.fixture
def case() -> tuple[Drafter, Tensor, Tensor]:
    seed = random.randrange(2**32)
    print("seed", seed)
    rng = random.Random(seed)
    torch.manual_seed(seed)
    shape = Shape(config(rng), (1, 3, 4))
    drafter = Drafter(shape)
    with torch.no_grad():
        for parameter in drafter.parameters():
            parameter.copy_(torch.randn(parameter.shape) * (0.3 if parameter.ndim > 1 else 1.0))
    embeddings = torch.randn(LENGTH, shape.config.hidden_size)
    return drafter, embeddings, torch.randn(LENGTH, 3, shape.config.hidden_size)


@torch.no_grad()
def test_unrolled_steps_are_those_of_a_chain_of_drafts(case: tuple[Drafter, Tensor, Tensor]) -> None:
    drafter, embeddings, states = case
    fused = drafter.fused(states)
    found = drafter(embeddings[None], fused[None], 4)
    plain = Plain(drafter)
    for anchor in range(LENGTH):
        memory: list[tuple[Tensor, Tensor]] = []
        for position in range(anchor + 1):
            own = plain.row(embeddings[position], fused[position], position, memory)
        for step in range(4):
            if step > 0:
                if anchor + step == LENGTH:
                    break
                own = plain.row(embeddings[anchor + step], own, anchor + step, memory)
            torch.testing.assert_close(found[step][0, anchor + step], own, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_texts_of_a_batch_do_not_see_each_other_nor_what_comes_later(
    case: tuple[Drafter, Tensor, Tensor],
) -> None:
    drafter, embeddings, states = case
    fused = drafter.fused(states)
    alone = drafter(embeddings[None, :6], fused[None, :6], 3)
    other = torch.randn_like(embeddings), torch.randn_like(fused)
    together = drafter(torch.stack((other[0], embeddings)), torch.stack((other[1], fused)), 3)
    for one, both in zip(alone, together, strict=True):
        torch.testing.assert_close(both[1, :6], one[0], rtol=1e-4, atol=1e-4)
    changed = drafter(torch.stack((embeddings, other[0])), torch.stack((fused, other[1])), 3)
    assert not torch.allclose(changed[2][1, :6], alone[2][0])


@torch.no_grad()
def test_a_chain_with_its_true_states_would_be_another(case: tuple[Drafter, Tensor, Tensor]) -> None:
    """The negative control: step 1 reads what the drafter itself gave."""
    drafter, embeddings, states = case
    found = drafter(embeddings[None], drafter.fused(states)[None], 2)
    assert not torch.allclose(found[0][0, 1:], found[1][0, 1:], atol=1e-2)


@torch.no_grad()
def test_a_drafter_made_of_its_parts_is_the_same(case: tuple[Drafter, Tensor, Tensor]) -> None:
    drafter, embeddings, states = case
    again = Drafter.of(drafter.parts(), drafter.shape.config)
    inputs = embeddings[None], drafter.fused(states[None])
    for one, other in zip(
        drafter(*inputs, 2), again(embeddings[None], again.fused(states[None]), 2), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    again.gate.weight.mul_(1.01)
    assert not torch.equal(again(*inputs, 1)[0], drafter(*inputs, 1)[0])
