"""Target tokens, acceptance and cache compaction on the device (csrc/cuda/acceptance.cuh and beside it)."""

from __future__ import annotations

from dataclasses import dataclass

from specee.cuda.arrays import Array, checked, view
from specee.cuda.launcher import Launcher, i32, i64
from specee.cuda.tiles import MAX_TREE_ROWS, ceil_div, vocab_splits
from specee.errors import ConfigurationError

NO_TOKEN = -1  # every logit of the row is -inf
UNSOUND = -2  # a logit of the row is NaN

_THREADS = 256
_COMPACT_THREADS = 128
_CHUNK = 16  # bytes that a thread moves at once


@dataclass(frozen=True)
class Draws:
    """How each row's token is drawn, all (rows,).

    ``temperatures`` float64, 0 is greedy; ``seeds`` uint64; ``positions`` int64, of the row, not of the token
    drawn after it (docs/numerics.md).
    """

    temperatures: Array
    seeds: Array
    positions: Array


@dataclass(frozen=True)
class Pieces:
    """Best score (float64) and token (int32) of each piece of the vocabulary, (rows, pieces)."""

    scores: Array
    tokens: Array


@dataclass(frozen=True)
class Drafts:
    """Rows of all sequences, each one's together: its newest committed row, then drafts after their parents.

    ``tokens``, ``parents`` (rows,) int32, numbers of rows; ``firsts`` (sequences + 1,) int32.
    """

    tokens: Array
    parents: Array
    firsts: Array


@dataclass(frozen=True)
class Accepted:
    """Arrays of int32 that acceptance writes.

    ``targets`` (rows,): the full model's token after each row. ``path`` (rows,): from each sequence's
    ``firsts`` on, its committed row and the accepted drafts. (sequences,): ``counts`` of these drafts, and
    ``next_tokens`` after them.
    """

    targets: Array
    path: Array
    counts: Array
    next_tokens: Array


def target_pieces(launcher: Launcher, logits: Array, draws: Draws, out: Pieces) -> None:
    """Best tokens of ``logits`` (rows, vocab) fp32 with Gumbel noise, a piece of the vocabulary at a time.

    Raises ConfigurationError.
    """
    rows, vocab = checked("logits", logits, "float32", (None, None))
    checked("draws.temperatures", draws.temperatures, "float64", (rows,))
    checked("draws.seeds", draws.seeds, "uint64", (rows,))
    checked("draws.positions", draws.positions, "int64", (rows,))
    pieces = vocab_splits(vocab)
    checked("out.scores", out.scores, "float64", (rows, pieces))
    checked("out.tokens", out.tokens, "int32", (rows, pieces))
    launcher.launch(
        "target_pieces",
        (pieces, rows, 1),
        _THREADS,
        [
            *(logits, draws.temperatures, draws.seeds, draws.positions, out.scores, out.tokens),
            *(i32(vocab), i32(pieces)),
        ],
    )


def accept(launcher: Launcher, pieces: Pieces, drafts: Drafts, out: Accepted) -> None:
    """Which drafts stay (Leviathan et al.'s greedy rule; coupled where targets are drawn with noise).

    ``out.next_tokens`` is ``NO_TOKEN`` or ``UNSOUND`` where there is no token to draw.
    Raises ConfigurationError.
    """
    rows, count = checked("pieces.scores", pieces.scores, "float64", (None, None))
    checked("pieces.tokens", pieces.tokens, "int32", (rows, count))
    if rows > MAX_TREE_ROWS:
        raise ConfigurationError(f"{rows} rows in one acceptance: allowed are up to {MAX_TREE_ROWS}")
    (ends,) = checked("drafts.firsts", drafts.firsts, "int32", (None,))
    for name, array in (("tokens", drafts.tokens), ("parents", drafts.parents)):
        checked(f"drafts.{name}", array, "int32", (rows,))
    for name, array, size in (
        ("targets", out.targets, rows),
        ("path", out.path, rows),
        ("counts", out.counts, ends - 1),
        ("next_tokens", out.next_tokens, ends - 1),
    ):
        checked(f"out.{name}", array, "int32", (size,))
    launcher.launch(
        "accept_drafts",
        (ends - 1, 1, 1),
        _THREADS,
        [
            *(pieces.scores, pieces.tokens, drafts.tokens, drafts.parents, drafts.firsts),
            *(out.targets, out.path, out.counts, out.next_tokens, i32(count)),
        ],
    )


def compact_cache(
    launcher: Launcher,
    keys: Array,
    values: Array,
    slots: Array,
    drafts: Drafts,
    accepted: Accepted,
    destinations: Array,
) -> None:
    """Move accepted drafts of all layers to ``destinations[s]`` and behind it.

    ``keys``, ``values`` (layers, slots, numbers a slot), 16-bit; ``slots`` (rows,) int32, where each row is,
    ascending along every path; ``destinations`` (sequences,) int32, not beyond the first draft's slot.
    Raises ConfigurationError.
    """
    stored = view(keys).dtype
    layers, number, width = checked("keys", keys, stored, (None, None, None))
    checked("values", values, stored, (layers, number, width))
    if stored not in ("bfloat16", "float16", "uint16") or width * 2 % _CHUNK:
        raise ConfigurationError(
            f"keys are {stored} with {width} numbers a slot: allowed are multiples of 8 16-bit numbers"
        )
    (rows,) = checked("slots", slots, "int32", (None,))
    checked("accepted.path", accepted.path, "int32", (rows,))
    (sequences,) = checked("destinations", destinations, "int32", (None,))
    checked("drafts.firsts", drafts.firsts, "int32", (sequences + 1,))
    checked("accepted.counts", accepted.counts, "int32", (sequences,))
    chunks = width * 2 // _CHUNK
    launcher.launch(
        "compact_cache",
        (ceil_div(chunks, _COMPACT_THREADS), layers, sequences),
        _COMPACT_THREADS,
        [
            *(keys, values, slots, drafts.firsts, accepted.path, accepted.counts, destinations),
            *(i64(number * chunks), i32(chunks)),
        ],
    )
