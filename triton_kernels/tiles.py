"""Tiles of products with a matrix: by the type and shape of the weights, never by the number of rows.

A tile is 16 rows, the least that a tensor core's product takes, times ``BLOCK_N`` outputs; more rows are more
programs, next to each other, so that weights come from memory once and from the L2 cache after that.
"""

from __future__ import annotations

import torch

ROWS = 16
WIDE = 8192


def narrow(outputs: int) -> int:
    """Outputs of a tile: few where the matrix has fewer than WIDE, so that all multiprocessors have work."""
    return 16 if outputs < WIDE else 32


def dense(dtype: torch.dtype, outputs: int) -> dict[str, int]:
    """Tile of a product with floats."""
    return {"BLOCK_M": ROWS, "BLOCK_N": narrow(outputs), "BLOCK_K": 64 if dtype == torch.float32 else 128}


def packed(dtype: torch.dtype, blocks: int, outputs: int) -> dict[str, int]:
    """Tile of a product of inputs of a type with quantised blocks.

    ``UNROLL`` blocks a turn, as many as divide their number; with fp32 inputs registers hold fewer.
    """
    most = 2 if dtype == torch.float32 else 4
    unroll = next(unroll for unroll in (4, 2, 1) if unroll <= most and blocks % unroll == 0)
    return {"BLOCK_M": ROWS, "BLOCK_N": narrow(outputs), "UNROLL": unroll}
