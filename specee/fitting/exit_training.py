"""Exit predictors, trained as published: a network 3k-512-1 a layer, by cross-entropy, with Adam.

All layers train side by side. How the probabilities changed is since the layer checked before, and which
that is depends on the schedule, so it is drawn anew for every sample: one to three layers before, or none.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from specee.fitting.exit_report import ExitReport
from specee.fitting.exit_samples import Samples
from specee.models.exit_parts import FEATURES, ExitParts, Floats

WIDTH, BATCH, RATE = 512, 1024, 1e-3
_GAPS = 4  # layers since the one checked before: 1 to 3, and none
THRESHOLD = 0.5


def train(
    samples: Samples,
    seed: int,
    epochs: int,
    tell: Callable[[int, int], None] = lambda *_: None,
    over: Callable[[], bool] = lambda: False,
) -> tuple[ExitParts, ExitReport]:
    """Predictors for all layers of ``samples``; four fifths are fitted on, and the rest is reported on.

    ``over`` ends it after any epoch.
    """
    fitted, held_out = samples.split(max(1, len(samples.right) * 4 // 5))
    generator = torch.Generator().manual_seed(seed)
    scores, right = torch.from_numpy(fitted.scores), torch.from_numpy(fitted.right).float()
    chances = torch.softmax(scores, -1)
    count, layers, candidates = scores.shape
    parts = _begun(layers, FEATURES * candidates, generator)
    optimiser = torch.optim.Adam(parts, lr=RATE)
    for epoch in range(epochs):
        if epoch and over():
            break
        tell(epoch, epochs)
        for indices in torch.split(torch.randperm(count, generator=generator), BATCH):
            before = _before(chances[indices], generator)
            inputs = torch.cat((scores[indices], chances[indices], chances[indices] - before), -1)
            loss = functional.binary_cross_entropy_with_logits(_score(parts, inputs), right[indices])
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            optimiser.step()
    rounded = tuple(part.detach().half().float() for part in parts)  # as the file has them
    shares, report = _judge(rounded, held_out)
    first, first_bias, second, second_bias = (part.numpy() for part in rounded)
    return ExitParts(tuple(range(1, layers + 1)), first, first_bias, second, second_bias, shares), report


def _begun(layers: int, features: int, generator: torch.Generator) -> list[Tensor]:
    """As torch begins linear layers: uniform, within the inverse root of what comes in."""

    def uniform(*shape: int, fan: int) -> Tensor:
        return (torch.rand(shape, generator=generator) * 2 - 1).mul_(fan**-0.5).requires_grad_()

    return [
        uniform(layers, WIDTH, features, fan=features),
        uniform(layers, WIDTH, fan=features),
        uniform(layers, WIDTH, fan=WIDTH),
        uniform(layers, fan=WIDTH),
    ]


def _score(parts: list[Tensor] | tuple[Tensor, ...], inputs: Tensor) -> Tensor:
    """(n, layers, features) -> (n, layers), before the sigmoid."""
    first, first_bias, second, second_bias = parts
    inner = torch.baddbmm(first_bias[:, None], inputs.transpose(0, 1), first.transpose(1, 2))
    return (torch.relu(inner) @ second[:, :, None])[..., 0].transpose(0, 1) + second_bias


def _before(chances: Tensor, generator: torch.Generator) -> Tensor:
    """Probabilities at a layer checked before, drawn for each sample and layer; zeros where there is none."""
    count, layers, _ = chances.shape
    gaps = torch.randint(1, _GAPS + 1, (count, layers), generator=generator)
    at = torch.arange(layers) - gaps
    at[gaps == _GAPS] = -1
    found = torch.gather(chances, 1, at.clamp(min=0)[..., None].expand_as(chances))
    return found.masked_fill_((at < 0)[..., None], 0.0)


@torch.no_grad()
def _judge(parts: tuple[Tensor, ...], samples: Samples) -> tuple[Floats, ExitReport]:
    """Share of positions that leave first at each layer: (layers,); and a summary."""
    scores = torch.from_numpy(samples.scores)
    chances = torch.softmax(scores, -1)
    before = functional.pad(chances, (0, 0, 1, 0))[:, :-1]
    sure = torch.sigmoid(_score(parts, torch.cat((scores, chances, chances - before), -1))) > THRESHOLD
    leaves = (sure & torch.from_numpy(samples.proposed)).numpy()
    count, layers = leaves.shape
    gone = leaves.any(1)
    at = np.where(gone, leaves.argmax(1), layers)
    shares = (np.bincount(at[gone], minlength=layers)[:layers] / max(count, 1)).astype(np.float32)
    agreed = samples.right[np.flatnonzero(gone), at[gone]]
    report = ExitReport(
        samples=count,
        exit_rate=float(gone.mean()) if count else 0.0,
        layer=float((at + 1).mean()) if count else 0.0,
        agreement=float(agreed.mean()) if len(agreed) else 0.0,
    )
    return shares, report
