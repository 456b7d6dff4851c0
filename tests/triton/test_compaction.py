"""Cache compaction in place."""

from __future__ import annotations

import pytest
import torch

from specee.errors import KernelArgumentError
from specee.triton_kernels.compaction import compact


@pytest.mark.parametrize(("kv_heads", "dim", "accepted"), [(1, 16, 1), (3, 100, 9), (2, 64, 0)])
def test_accepted_rows_follow_the_committed_ones(
    device: str, seed: int, dtype: torch.dtype, kv_heads: int, dim: int, accepted: int
) -> None:
    made = torch.Generator().manual_seed(seed)
    layers, slots, first = 3, 40, 11
    cache = torch.randn(2, layers, slots, kv_heads, dim, generator=made).to(device, dtype)
    cache[:, :, 30:33] = torch.nan  # moves as any other number does
    drawn = torch.randperm(slots - first, generator=made)[:accepted].sort().values + first
    sources = torch.full((accepted + 4,), -1, dtype=torch.int32)
    sources[:accepted] = drawn
    expected = cache.clone()
    expected[:, :, first : first + accepted] = cache[:, :, drawn.to(device)]
    compact(cache[0], cache[1], sources.to(device), first)
    assert torch.equal(cache.nan_to_num(7.0), expected.nan_to_num(7.0))


def test_neighbours_move_down_by_one(device: str) -> None:
    """Each move reads what the next one overwrites: in any other order rows would be lost."""
    cache = torch.arange(20.0, device=device).reshape(1, 20, 1, 1).repeat(1, 1, 1, 8).contiguous()
    values = cache.clone()
    compact(cache, values, torch.arange(4, 12, device=device), 3)
    assert cache[0, :, 0, 0].tolist() == [0, 1, 2, *range(4, 12), 11, *range(12, 20)]
    assert torch.equal(cache, values)


def test_what_does_not_fit_is_refused(device: str) -> None:
    cache = torch.zeros(1, 8, 1, 4, device=device)
    with pytest.raises(KernelArgumentError, match="first is 7: allowed are 0 to 5"):
        compact(cache, cache.clone(), torch.zeros(3, dtype=torch.int32, device=device), 7)
    with pytest.raises(KernelArgumentError, match="values has shape"):
        compact(cache, cache[0], torch.zeros(3, dtype=torch.int32, device=device), 0)
