"""Which exit layers adapters are fitted for, and how wide they are."""

from __future__ import annotations

_TENTHS = 1, 2, 4, 6, 8
_SHARES = 16, 4, 1
_WIDEST = 1024


def exit_layers(depth: int) -> tuple[int, ...]:
    """A handful of 1..depth-1, denser below.

    A draft costs as many layers as its exit has below it, so shallow exits have most to gain; four fifths is
    what `layerskip` drafts at unless told otherwise.
    """
    return tuple(sorted({min(max(round(depth * tenth / 10), 1), depth - 1) for tenth in _TENTHS} - {0}))


def widths_of(hidden: int) -> tuple[int, ...]:
    """A sixteenth, a fourth and all of the hidden size in blocks of 16 outputs, but none that is too wide."""
    able = {-(-hidden // (16 * share)) * 16 for share in _SHARES}
    return tuple(sorted(width for width in able if width <= _WIDEST))
