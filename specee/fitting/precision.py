"""What products of training are computed in."""

from __future__ import annotations

import torch

PRODUCTS = torch.bfloat16 if torch.ops.mkldnn._is_mkldnn_bf16_supported() else torch.float32
"""bf16 where the processor has instructions for it: elsewhere torch takes ten times as long as for fp32."""


def autocast(*, enabled: bool = True) -> torch.autocast:
    """Products in :data:`PRODUCTS`, in what is done inside."""
    return torch.autocast("cpu", torch.bfloat16, enabled=enabled and torch.bfloat16 == PRODUCTS)
