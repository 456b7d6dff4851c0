"""Random rows, norms and LM heads, whose rows that nobody may read are NaN."""

from __future__ import annotations

from typing import NamedTuple

import torch

from specee.bench.kernels import torch_references as reference
from tests.triton import bounds

EPS = 1e-5


class Head(NamedTuple):
    """hidden (R, size), norm (size,), head (vocab, size): poisoned but for ``ids``, (k,) or (R, k)."""

    hidden: torch.Tensor
    norm: torch.Tensor
    head: torch.Tensor
    ids: torch.Tensor

    @property
    def expected(self) -> torch.Tensor:
        return reference.candidate_logits(self.hidden, self.norm, self.head, self.ids, EPS)

    @property
    def tolerance(self) -> torch.Tensor:
        """Of the logits: a sum of products, times a norm that is off by itself."""
        norms = reference.rms_norm(self.hidden, self.norm, EPS).norm(dim=1)[:, None]
        rows = self.head[self.ids.clamp(min=0).long()].double().norm(dim=-1)
        size = self.hidden.shape[1]
        product = bounds.LAMBDA * (size + 4) ** 0.5 * bounds.UNIT * norms * rows
        return product + bounds.relative_norm(size) * self.expected.abs().nan_to_num(posinf=0)


def random_head(
    seed: int,
    device: str,
    dtype: torch.dtype,
    *,
    rows: int,
    size: int,
    count: int,
    own: bool,
    vocab: int = 200,
) -> Head:
    """``own``: ids for each row. Memory after the last row of states is poisoned too."""
    made = torch.Generator().manual_seed(seed)
    hidden = torch.full((rows + 1, size), torch.nan)
    hidden[:rows] = torch.randn(rows, size, generator=made) * torch.rand(rows, 1, generator=made) * 20
    norm = 1 + 0.2 * torch.randn(size, generator=made)
    sets = [torch.randperm(vocab, generator=made)[:count] for _ in range(rows if own else 1)]
    ids = torch.stack(sets) if own else sets[0]
    head = torch.full((vocab, size), torch.nan)
    used = ids.unique()
    head[used] = torch.randn(len(used), size, generator=made) / size**0.5
    head, hidden, norm = (value.to(device, dtype) for value in (head, hidden, norm))
    return Head(hidden[:rows], norm, head, ids.to(device, torch.int32))
