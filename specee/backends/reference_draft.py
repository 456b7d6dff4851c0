"""Draft heads of the reference backend: the model's head with fewer tokens, and an adapter before it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from specee.backends.draft_parts import checked_adapter, checked_vocabulary
from specee.backends.protocol import Ints
from specee.backends.reference_math import Matrix, linear, rms_norm
from specee.models.speculator import Adapter
from specee.types import ModelConfig


@dataclass(frozen=True)
class ReferenceDraftHead:
    """See :meth:`.Backend.draft_head`. ``ids``: kept tokens, ascending, None for all."""

    config: ModelConfig
    matrix: Matrix
    ids: Tensor | None
    norm: Tensor | None
    down: Matrix | None
    up: Matrix | None
    bytes: int
    normed: bool = False

    def adapt(self, x: Tensor) -> Tensor:
        """What the final norm takes for the state x: (hidden_size,) fp32 -> the same."""
        if self.norm is None or self.down is None or self.up is None:
            return x
        inner = linear(rms_norm(x, self.norm, self.config.norm_eps), self.down, None)
        return x + linear(torch.nn.functional.silu(inner), self.up, None)

    def keep(self, logits: Tensor) -> Tensor:
        """Logits of the whole head with minus infinity for tokens that are not kept: (vocab_size,)."""
        if self.ids is None:
            return logits
        kept = torch.full_like(logits, -torch.inf)
        kept[self.ids] = logits[self.ids]
        return kept


def make_draft_head(
    config: ModelConfig,
    adapter: Adapter | None,
    vocabulary: Ints | None,
    matrix: Matrix,
    row_bytes: int,
    device: torch.device,
) -> ReferenceDraftHead:
    """Check the parts and put them on ``device``; ``row_bytes`` is what a row of ``matrix``, the head, takes.

    Raises ConfigurationError.
    """
    ids = None if vocabulary is None else torch.from_numpy(checked_vocabulary(vocabulary, config)).to(device)
    size = row_bytes * (config.vocab_size if ids is None else len(ids))
    if adapter is None:
        return ReferenceDraftHead(config, matrix, ids, None, None, None, size)
    parts = checked_adapter(adapter, config)
    norm = torch.tensor(parts.norm, device=device)
    down, up = (
        Matrix(torch.tensor(values, device=device).to(torch.bfloat16).to(torch.float32), "BF16")
        for values in (parts.down, parts.up)
    )
    size += 4 * norm.numel() + 2 * (down.values.numel() + up.values.numel())
    return ReferenceDraftHead(config, matrix, ids, norm, down, up, size)
