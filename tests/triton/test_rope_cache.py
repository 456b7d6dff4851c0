"""Rotary embedding and cache append."""

from __future__ import annotations

import pytest
import torch

from specee.bench.kernels import torch_references as reference
from specee.errors import KernelArgumentError
from specee.triton_kernels.rope_cache import rope_append
from tests.triton import bounds
from tests.triton.bounds import assert_within
from tests.triton.shapes import drawn

SLOTS = 40

Tensor = torch.Tensor


def random_case(
    seed: int, device: str, dtype: torch.dtype, rows: int, heads: int, kv_heads: int, dim: int
) -> dict[str, Tensor]:
    """Arguments; the cache is NaN, and so are angles of positions that no row has."""
    made = torch.Generator().manual_seed(seed)
    positions = torch.randperm(100, generator=made)[:rows]
    angles = torch.full((100, dim // 2), torch.nan)
    angles[positions] = 6 * torch.rand(rows, dim // 2, generator=made)
    qkv = torch.randn(rows, heads + 2 * kv_heads, dim, generator=made)
    case = {
        "qkv": qkv,
        "positions": positions,
        "slots": torch.randperm(SLOTS, generator=made)[:rows].int(),
        "cos": angles.cos(),
        "sin": angles.sin(),
        "keys": torch.full((SLOTS, kv_heads, dim), torch.nan, dtype=dtype),
        "values": torch.full((SLOTS, kv_heads, dim), torch.nan, dtype=dtype),
    }
    return {name: value.to(device) for name, value in case.items()}


@pytest.mark.parametrize("shape", [(1, 2, 1, 64), (5, 9, 3, 40), (7, 4, 4, 16), (3, 2, 2, 6), None])
def test_against_the_reference(
    device: str, seed: int, dtype: torch.dtype, shape: tuple[int, int, int, int] | None
) -> None:
    rows, heads, kv_heads, half = shape or drawn(seed, (1, 9), (1, 6), (1, 4), (1, 70))
    dim = half if shape else 2 * half
    case = random_case(seed, device, dtype, rows, heads, kv_heads, dim)
    queries = rope_append(**case)
    assert queries.dtype == dtype
    cos, sin = (case[name][case["positions"]] for name in ("cos", "sin"))
    rotated = reference.rope(case["qkv"][:, : heads + kv_heads], cos, sin)
    # Two products and a sum, of numbers no larger than the pair is long.
    first, second = case["qkv"][:, : heads + kv_heads].double().chunk(2, -1)
    length = (first**2 + second**2).sqrt().repeat(1, 1, 2)
    tolerance = 3 * bounds.UNIT * length + bounds.stored(rotated, dtype)
    assert_within(queries, rotated[:, :heads], tolerance[:, :heads])
    slots = case["slots"].long()
    assert_within(case["keys"][slots], rotated[:, heads:], tolerance[:, heads:])
    assert torch.equal(case["values"][slots], case["qkv"][:, heads + kv_heads :].to(dtype))
    others = torch.ones(SLOTS, dtype=torch.bool, device=device)
    others[slots] = False
    assert case["keys"][others].isnan().all()
    assert case["values"][others].isnan().all()
    with pytest.raises(AssertionError, match="rounding"):
        assert_within(rope_append(**{**case, "sin": -case["sin"]}), rotated[:, :heads], tolerance[:, :heads])


def test_a_row_alone_has_the_bits_of_a_row_among_others(device: str, seed: int) -> None:
    case = random_case(seed, device, torch.float16, 6, 4, 2, 64)
    together = rope_append(**case)
    for row in range(6):
        one = slice(row, row + 1)
        mine = {name: case[name][one] for name in ("qkv", "positions", "slots")}
        caches = {name: torch.full_like(case[name], torch.nan) for name in ("keys", "values")}
        assert torch.equal(rope_append(**{**case, **mine, **caches})[0], together[row])
        slot = int(case["slots"][row])
        assert all(torch.equal(caches[name][slot], case[name][slot]) for name in caches)


def test_what_does_not_fit_is_refused(device: str) -> None:
    case = random_case(1, device, torch.float32, 2, 4, 2, 64)
    with pytest.raises(KernelArgumentError, match="head size of qkv is 63"):
        rope_append(**{**case, "qkv": case["qkv"][:, :, 1:].contiguous()})
    with pytest.raises(KernelArgumentError, match="less those of the cache is -1"):
        rope_append(**{**case, "qkv": case["qkv"][:, :3].contiguous()})
    with pytest.raises(KernelArgumentError, match=r"values is torch\.float16"):
        rope_append(**{**case, "values": case["values"].half()})
