"""One case: a sound file and what was done to it, a function of (seed, number) alone."""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import pairwise

from gguf.constants import GGML_QUANT_SIZES

from .layout import Layout
from .mutations import BYTEWISE, KNOWN_TYPES, STRUCTURAL
from .sound import FILES, sound_layout

# After these the directory says what the layout says, so that an independent check of it is valid.
_READABLE = {
    *("bent_offset", "overlap", "bent_dim", "oversized", "bent_type"),
    *("exchanged", "retyped", "reshaped", "bad_content", "truncated"),
}


@dataclass(frozen=True)
class Case:
    """A file to load; ``origin`` and ``damage`` say how it was made, ``misplaced`` why it must be refused."""

    origin: str
    damage: tuple[str, ...]
    data: bytes
    misplaced: str


def make_case(seed: int, number: int) -> Case:
    """Case ``number`` of ``seed``: mostly one mutation, so that nothing hides behind an earlier error."""
    source = random.Random(f"{seed}/{number}")
    origin = source.choice(list(FILES))
    layout = sound_layout(origin)
    names = [*STRUCTURAL, *BYTEWISE]
    damage = sorted(source.sample(names, source.choice([1, 1, 1, 1, 2, 3])), key=names.index)
    for name in damage:
        if name in STRUCTURAL:
            STRUCTURAL[name](layout, source)
    data, header = layout.packed(), layout.header_size
    for name in damage:
        if name in BYTEWISE:
            data = BYTEWISE[name](data, header, source)
    return Case(
        origin, tuple(damage), data, misplaced(layout, len(data)) if _READABLE.issuperset(damage) else ""
    )


def misplaced(layout: Layout, file_size: int) -> str:
    """What is wrong with the places of the tensors in a file of this size; empty if nothing is."""
    ends: list[tuple[int, int, str]] = []
    for tensor in layout.tensors():
        if tensor.kind.number not in KNOWN_TYPES:
            return f"{tensor.name} has type {tensor.kind.number}"
        if tensor.dims[0].number % GGML_QUANT_SIZES[tensor.kind.number][0]:
            return f"{tensor.name} ends within a block"
        begin = layout.data_begin + tensor.offset.number
        if tensor.offset.number % layout.alignment or begin + tensor.size > file_size:
            return f"{tensor.name} is off the grid or the file"
        ends.append((begin, begin + tensor.size, tensor.name))
    ends.sort()
    for (_, end, first), (begin, _, second) in pairwise(ends):
        if begin < end:
            return f"{first} and {second} overlap"
    return ""
