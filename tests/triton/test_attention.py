"""Decode attention over slots by logical position."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from specee.bench.kernels import torch_references as reference
from specee.errors import KernelArgumentError
from specee.triton_kernels.attention import SPLIT, decode_attention
from tests.triton import bounds
from tests.triton.bounds import assert_within
from tests.triton.shapes import drawn

Tensor = torch.Tensor


def random_case(
    seed: int, device: str, dtype: torch.dtype, lengths: list[int], heads: int, kv_heads: int, dim: int
) -> dict[str, Any]:
    """Each row has slots of its own, scattered; slots of no row are NaN, entries beyond its length absurd."""
    made = torch.Generator().manual_seed(seed)
    capacity, count = max(lengths) + 3, sum(lengths) + 20
    order = torch.randperm(count, generator=made)
    table = torch.full((len(lengths), capacity), 2**30, dtype=torch.int32)
    keys, values = torch.full((2, count, kv_heads, dim), torch.nan)
    begin = 0
    for row, length in enumerate(lengths):
        table[row, :length] = order[begin : begin + length]
        begin += length
    used = order[:begin]
    keys[used] = torch.randn(begin, kv_heads, dim, generator=made)
    values[used] = torch.randn(begin, kv_heads, dim, generator=made)
    q = torch.randn(len(lengths), heads, dim, generator=made)
    return {
        "q": q.to(device, dtype),
        "keys": keys.to(device, dtype),
        "values": values.to(device, dtype),
        "table": table.to(device),
        "lengths": torch.tensor(lengths, dtype=torch.int32, device=device),
        "scale": dim**-0.5,
    }


def visible(case: dict[str, Any], window: int = 0) -> list[list[int]]:
    lengths = case["lengths"].tolist()
    first = [max(0, length - window) if window else 0 for length in lengths]
    return [row[a:b] for row, a, b in zip(case["table"].tolist(), first, lengths, strict=True)]


def tolerance(case: dict[str, Any]) -> Tensor:
    """(R, 1, 1). Scores are off by rounding of their sums; weights are rounded to the cache's type on the
    way."""
    q, keys, values = (case[name].double() for name in ("q", "keys", "values"))
    dim, context = q.shape[-1], int(case["lengths"].max())
    largest = q.norm(dim=-1).amax(1) * keys.nan_to_num().norm(dim=-1).max() * case["scale"]
    weight = (
        bounds.LAMBDA * dim**0.5 + 4 + bounds.EXP
    ) * bounds.UNIT * largest + 2 * bounds.EXP * bounds.UNIT
    rounded = bounds.ROUNDING[case["keys"].dtype] + bounds.ROUNDING[case["q"].dtype]
    sums = 2 * bounds.LAMBDA * bounds.UNIT * context**0.5
    small = context * bounds.SMALLEST[case["keys"].dtype]
    worst = 2 * weight + rounded + sums + small
    return (worst * values.nan_to_num().abs().max())[:, None, None]


def expected(case: dict[str, Any], window: int = 0) -> Tensor:
    return reference.attention(case["q"], case["keys"], case["values"], visible(case, window), case["scale"])


@pytest.mark.parametrize(
    ("lengths", "heads", "kv_heads", "dim"),
    [
        ([1], 2, 2, 64),
        ([7, 64, 65], 6, 2, 40),
        ([SPLIT, 1, SPLIT + 1, 600], 2, 1, 16),
        ([90], 18, 1, 32),
        (None, 0, 0, 0),
    ],
)
def test_against_the_reference(
    device: str, seed: int, dtype: torch.dtype, lengths: list[int] | None, heads: int, kv_heads: int, dim: int
) -> None:
    if lengths is None:
        *lengths, kv_heads, group, dim = drawn(seed, *[(1, 400)] * 3, (1, 3), (1, 4), (1, 80))
        heads = kv_heads * group
    case = random_case(seed, device, dtype, lengths, heads, kv_heads, dim)
    assert_within(decode_attention(**case), expected(case), tolerance(case))
    if max(lengths) > 1:
        with pytest.raises(AssertionError, match="rounding"):
            assert_within(decode_attention(**{**case, "scale": 2.0}), expected(case), tolerance(case))


@pytest.mark.parametrize("window", [1, 50, 64, 300])
def test_a_window(device: str, seed: int, window: int) -> None:
    case = random_case(seed, device, torch.float32, [5, 130, 520], 2, 2, 16)
    for row, slots in enumerate(visible(case, window)):
        before = case["table"][row, : case["lengths"][row] - len(slots)].long()
        case["keys"][before] = torch.nan
        case["values"][before] = torch.nan
    assert_within(decode_attention(**case, window=window), expected(case, window), tolerance(case))


def test_a_branch_has_the_bits_of_the_chain_it_becomes(device: str, seed: int) -> None:
    """A trunk of 300 and branches on it: each row alone, among others, and where its text lies in one
    piece."""
    case = random_case(seed, device, torch.float16, [300, 300, 300, 300], 4, 2, 32)
    table = case["table"].clone()
    table[1:, :290] = table[0, :290]  # three more rows share the trunk
    tree = {**case, "table": table, "lengths": torch.tensor([300, 295, 291, 300], device=device)}
    together = decode_attention(**tree)
    for row in range(4):
        length = int(tree["lengths"][row])
        alone = {**tree, "q": tree["q"][row : row + 1], "lengths": tree["lengths"][row : row + 1]}
        slots = table[row, :length].long()
        keys, values = (torch.full_like(case[name], torch.nan) for name in ("keys", "values"))
        keys[:length], values[:length] = case["keys"][slots], case["values"][slots]
        chain = torch.arange(length, dtype=torch.int32, device=device)[None]
        assert torch.equal(decode_attention(**{**alone, "table": table[row : row + 1]})[0], together[row])
        moved = decode_attention(**{**alone, "table": chain, "keys": keys, "values": values})
        assert torch.equal(moved[0], together[row])
    assert not torch.equal(together[1], together[2])


def test_order_matters_to_the_bits(device: str, seed: int) -> None:
    """Negative control: the same keys in another order are the same sum, in other bits."""
    case = random_case(seed, device, torch.float32, [200], 4, 1, 32)
    shuffled = {**case, "table": case["table"].clone()}
    shuffled["table"][0, :200] = case["table"][0, :200].flip(0)
    first, second = decode_attention(**case), decode_attention(**shuffled)
    assert_within(second, first.double(), 2 * tolerance(case))
    assert not torch.equal(first, second)


def test_what_does_not_fit_is_refused(device: str) -> None:
    case = random_case(1, device, torch.float32, [3], 4, 2, 16)
    with pytest.raises(KernelArgumentError, match="heads of q is 3"):
        decode_attention(**{**case, "q": case["q"][:, :3].contiguous()})
    with pytest.raises(KernelArgumentError, match="window is -1"):
        decode_attention(**case, window=-1)
    with pytest.raises(KernelArgumentError, match="table has shape"):
        decode_attention(**{**case, "table": case["table"][0]})
