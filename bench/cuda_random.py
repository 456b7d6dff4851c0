"""Models with random weights on a device, made where they stay: a checkpoint of that size takes minutes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from specee.backends.protocol import Backend
from specee.cuda.packing import PackedWeights
from specee.cuda.tiles import TILE_OUTPUTS, TILE_UNIT, ceil_div
from specee.models import table
from specee.models.formats import made_formats
from specee.types import ModelConfig, WeightFormat

if TYPE_CHECKING:
    import torch

_MIDDLE = 7.5  # of the sixteen values of a nibble


def backend_with(
    weights: dict[table.Key, Any],
    config: ModelConfig,
    device: str,
    stored: WeightFormat = "bf16",
    **arguments: Any,
) -> Backend:
    """A backend with weights that are there, without a copy."""
    from specee.backends.cuda import CudaBackend

    return CudaBackend(config, iter(()), stored, device=device, given=weights, **arguments)


def random_weights(
    config: ModelConfig, device: str, stored: WeightFormat = "bf16", seed: int | None = None
) -> dict[table.Key, Any]:
    """Every matrix and vector of the table: rows of matrices are about as long as one, norms are ones.

    ``seed``: None for whatever torch draws next.
    """
    import torch

    generator = None if seed is None else torch.Generator(device).manual_seed(seed)
    formats, found = made_formats(config, stored), dict[table.Key, Any]()
    for key, shape in table.shapes(config).items():
        form = formats.get(key)
        if form in ("Q8_0", "Q4_1"):
            found[key] = _packed(shape[0], shape[1], device, generator, four=form == "Q4_1")
        elif form is None:
            found[key] = torch.ones(shape, device=device)
        else:
            values = torch.empty(shape, dtype=torch.bfloat16, device=device)
            found[key] = values.normal_(0, shape[1] ** -0.5, generator=generator)
    return found


def _packed(
    outputs: int, k: int, device: str, generator: torch.Generator | None, *, four: bool
) -> PackedWeights:
    """Random integers in the kernels' layout (:mod:`specee.cuda.packing`), which is all the same to them."""
    import torch

    tiles = ceil_div(outputs, TILE_OUTPUTS) * k // TILE_UNIT
    count = tiles * TILE_OUTPUTS * TILE_UNIT // (2 if four else 1)
    data = torch.randint(0, 256, (count,), generator=generator, dtype=torch.uint8, device=device)
    scale = k**-0.5 / (4.6 if four else 74)
    parts = [scale, -_MIDDLE * scale] if four else [scale]
    one = torch.tensor(parts, dtype=torch.float16, device=device).repeat_interleave(TILE_OUTPUTS)
    scales: torch.Tensor = one.repeat(tiles).view(torch.int16)
    return PackedWeights("int4" if four else "int8", outputs, k, data, scales)
