"""csrc/include/specee/tiles.h in Python, as far as launches need it; a test holds them together."""

from __future__ import annotations

TILE_OUTPUTS = 16
TILE_ROWS = 8
TILE_UNIT = 32
LINEAR_WARPS = 8
MAX_LINEAR_ROWS = 64
ATTENTION_SPLIT = 256
ATTENTION_HEADS = 8
VOCAB_SPLIT = 4096
SCORE_CANDIDATES = 16
SCORE_THREADS = 512
MAX_HIDDEN = 16384
MAX_TREE_ROWS = 1024
LANES = 32


def ceil_div(count: int, size: int) -> int:
    """``count / size``, rounded up."""
    return -(-count // size)


def row_tiles(rows: int) -> int:
    """Groups of 8 rows that a row-linear kernel is compiled for: 1, 2, 4 or 8."""
    needed = ceil_div(rows, TILE_ROWS)
    return needed if needed <= 2 else 4 if needed <= 4 else 8


def attention_splits(length: int) -> int:
    """Splits of ``length`` positions."""
    return ceil_div(length, ATTENTION_SPLIT)


def vocab_splits(vocab: int) -> int:
    """Pieces of a vocabulary."""
    return ceil_div(vocab, VOCAB_SPLIT)
