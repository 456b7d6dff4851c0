"""Training adapters of several exit layers and widths side by side, resumable.

Each is fitted alone, against the full model's distribution over the draft vocabulary (:mod:`.distillation`);
they share states and the head's work. AdamW (Loshchilov and Hutter, 2019) with a cosine schedule.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from specee.fitting import kept_training
from specee.fitting.adapter_samples import Positions
from specee.fitting.distillation import distilled
from specee.fitting.drafter import Norm
from specee.fitting.frozen import Frozen
from specee.fitting.precision import PRODUCTS, autocast
from specee.fitting.training import schedule
from specee.models.speculator import Adapter
from specee.types import ModelConfig

_RATE, _DECAY, _CLIP = 6e-3, 0.01, 1.0


class ExitAdapter(nn.Module):
    """``h + scale * up @ silu(down @ rms_norm(h, norm))`` (Houlsby et al., 2019); it begins as nothing.

    ``scale``: how large states of the layer are, so that one learning rate fits all layers.
    """

    scale: Tensor

    def __init__(self, config: ModelConfig, width: int) -> None:
        super().__init__()
        hidden = config.hidden_size
        self.norm = Norm(hidden, config.norm_eps)
        self.down = nn.Linear(hidden, width, bias=False)
        self.up = nn.Linear(width, hidden, bias=False)
        nn.init.normal_(self.down.weight, std=hidden**-0.5)
        nn.init.zeros_(self.up.weight)
        self.register_buffer("scale", torch.zeros(()))

    def forward(self, states: Tensor) -> Tensor:
        """(n, hidden), fp32 -> the same."""
        adapted: Tensor = states + self.scale * self.up(functional.silu(self.down(self.norm(states)))).float()
        return adapted

    def part(self) -> Adapter:
        """As a speculator file holds it."""
        with torch.no_grad():
            up = self.scale * self.up.weight
        parts = self.norm.weight, self.down.weight, up
        return Adapter(*(part.detach().float().numpy().copy() for part in parts))


class AdapterTraining:
    """``batches`` of them in all, ``done`` are behind us; ``of`` tells this run from others.

    There is an adapter of each of ``widths`` for each of ``layers``.
    """

    def __init__(
        self,
        frozen: Frozen,
        vocabulary: Tensor,
        layers: Seq[int],
        widths: Seq[int],
        batches: int,
        of: str,
    ) -> None:
        self.batches, self.done = batches, 0
        self.layers, self.widths = tuple(layers), tuple(widths)
        self._of, self._frozen = of, frozen
        self._head = frozen.rows(vocabulary).to(PRODUCTS)
        self.adapters = nn.ModuleList([ExitAdapter(frozen.config, width) for _ in layers for width in widths])
        self._optimizer = torch.optim.AdamW(
            self.adapters.parameters(), _RATE, (0.9, 0.95), weight_decay=_DECAY
        )

    def by_layer(self) -> list[list[ExitAdapter]]:
        """Adapters of each layer, one of each width."""
        flat = [adapter for adapter in self.adapters if isinstance(adapter, ExitAdapter)]
        return [flat[i : i + len(self.widths)] for i in range(0, len(flat), len(self.widths))]

    def step(self, positions: Positions, progress: float | None = None) -> None:
        """One batch; ``progress`` (0 to 1) of the training, None for the share of batches that are done."""
        if progress is None:
            progress = self.done / self.batches
        for group in self._optimizer.param_groups:
            group["lr"] = _RATE * schedule(self.done, progress)
        outputs = []
        for states, adapters in zip(positions.states.unbind(1), self.by_layer(), strict=True):
            for adapter in adapters:
                if self.done == 0:
                    adapter.scale.copy_(states.pow(2).mean().sqrt())
                with autocast():
                    outputs.append(self._frozen.normed(adapter(states)))
        everything = torch.ones(len(positions.last), dtype=torch.bool)
        wanted = self._frozen.normed(positions.last)
        losses = distilled(self._head, wanted, outputs, [everything] * len(outputs))
        self._optimizer.zero_grad()
        torch.stack(losses).sum().backward()  # type: ignore[no-untyped-call]
        for adapter in (adapter for adapters in self.by_layer() for adapter in adapters):
            nn.utils.clip_grad_norm_(adapter.parameters(), _CLIP)
        self._optimizer.step()
        self.done += 1

    def save(self, path: Path) -> None:
        """All that a resumed run needs. Raises OSError."""
        kept_training.save(path, self._of, self.adapters, self._optimizer, {"done": self.done})

    def resume(self, path: Path) -> None:
        """Go on where :meth:`save` was. Raises CheckpointError for a file of another run."""
        self.done = kept_training.resume(path, self._of, self.adapters, self._optimizer)["done"]
