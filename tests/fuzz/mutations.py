"""Ways to damage a sound GGUF file. Each takes the layout and a random source and changes the layout.

Most give a file that must be refused; some give another sound file, so that the kernels behind the parser see
odd shapes, types and contents as well.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

from .layout import ARRAY, SCALAR_KINDS, STRING, Field, Layout, Tensor

_WORD, _HALF = 1 << 64, 1 << 32
# Around the limits of the integers that a size may pass through on its way.
_EDGES = (0, 1, 2, 3, 31, 32, 33, 255, 256, *(1 << bits for bits in (15, 16, 31, 32, 33, 53, 62, 63)))
KNOWN_TYPES = tuple(kind.value for kind in GGMLQuantizationType)
# Bytes of an IEEE half below one in size, whatever their place, so that scales are finite.
_MODERATE = bytes(value & 0xBB for value in range(256))


def edge(source: random.Random) -> int:
    """An unsigned 64-bit number near a limit, or near the wrap-around."""
    number = source.choice(_EDGES) + source.choice([-1, 0, 0, 1])
    return source.choice([number, number, -number]) % _WORD


def near(value: int, source: random.Random) -> int:
    """Another number: a neighbour, a multiple, or an edge."""
    changed = source.choice(
        [value + 1, value - 1, value * 2, value // 2, value ^ (1 << source.randrange(64))]
    )
    return source.choice([changed, edge(source)]) % _WORD


def bent_offset(layout: Layout, source: random.Random) -> None:
    """A tensor somewhere else: past the end, before the beginning, off the grid, or around 2**64."""
    tensor = source.choice(layout.tensors())
    begin, offset = layout.data_begin, tensor.offset.number
    step = layout.alignment
    tensor.offset.value = source.choice(
        [
            near(offset, source),
            edge(source) // step * step,
            layout.file_size // step * step,
            (len(layout.data) - tensor.size) // step * step + step,
            -begin % _WORD,  # the magic number
            -begin % _WORD // step * step,
            (-begin - tensor.size) % _WORD // step * step,  # its end is byte 0
            (offset - step * source.randrange(1, 64)) % _WORD,
            offset + source.randrange(1, step),
        ]
    )


def overlap(layout: Layout, source: random.Random) -> None:
    """A tensor that begins within another one."""
    victim, thief = source.sample(layout.tensors(), 2)
    inside = source.randrange(-(-victim.size // layout.alignment)) * layout.alignment
    thief.offset.value = victim.offset.number + source.choice([0, inside])


def bent_dim(layout: Layout, source: random.Random) -> None:
    """A dimension that is wrong, or so large that the size wraps around to something small."""
    tensor = source.choice(layout.tensors())
    dim = source.choice(tensor.dims)
    dim.value = source.choice(
        [near(dim.number, source), dim.number + (1 << source.randrange(48, 64)), edge(source)]
    )


def oversized(layout: Layout, source: random.Random) -> None:
    """The model is consistent and far too large: only the size of the file says no."""
    grow(layout, source.choice(_SIZES), lambda size: size << source.choice([1, 4, 16, 28, 40, 58]))


def bent_rank(layout: Layout, source: random.Random) -> None:
    """A number of dimensions that does not fit what follows."""
    rank = source.choice(layout.labelled("rank"))
    rank.value = source.choice([rank.number + 1, rank.number - 1, 4, 5, edge(source) % _HALF])


def bent_type(layout: Layout, source: random.Random) -> None:
    """A tensor of another type over the same bytes."""
    source.choice(layout.tensors()).kind.value = source.choice([*KNOWN_TYPES, edge(source) % _HALF])


def bent_alignment(layout: Layout, source: random.Random) -> None:
    """An alignment that the file does not follow, or that is none."""
    field = layout.value("general.alignment")
    field.value = source.choice([0, 1, 3, 16, 64, 4096, 1 << 31, edge(source)])


def bent_count(layout: Layout, source: random.Random) -> None:
    """More or fewer tensors, entries or items than there are."""
    field = source.choice(layout.labelled("tensor-count", "entry-count", "item-count"))
    field.value = near(field.number, source)


def bent_length(layout: Layout, source: random.Random) -> None:
    """A string longer or shorter than it is."""
    field = source.choice(layout.labelled("key-length", "name-length", "text-length", "item-length"))
    field.value = near(field.number, source)


def bent_value(layout: Layout, source: random.Random) -> None:
    """A number of the configuration that contradicts the tensors, or has no meaning."""
    field = source.choice(layout.labelled("value", "value", "item"))
    if field.form == "f":
        field.value = source.choice([0.0, -1.0, 1e-45, 3e38, float("inf"), float("nan")])
    elif field.form:
        field.value = near(int(field.value), source)


def bent_kind(layout: Layout, source: random.Random) -> None:
    """Metadata of another type than its bytes."""
    kinds = [*SCALAR_KINDS, STRING, ARRAY, 13, edge(source) % _HALF]
    source.choice(layout.labelled("kind", "item-kind")).value = source.choice(kinds)


def bent_text(layout: Layout, source: random.Random) -> None:
    """A key, name, string or token with other letters."""
    field = source.choice(layout.labelled("key", "name", "text", "item"))
    if isinstance(field.value, bytes) and field.value:
        text = bytearray(field.value)
        text[source.randrange(len(text))] = source.choice([0, 0x20, 0x2E, 0x61, 0x80, 0xC0, 0xFF])
        field.value = bytes(text)


def twice(layout: Layout, source: random.Random) -> None:
    """One entry or tensor a second time, or not at all, and the count to match."""
    name = source.choice(list(layout.entries))
    items = layout.entries[name]
    count = layout.fields[2 if items[0].label == "name-length" else 3]
    at = next(index for index, item in enumerate(layout.fields) if item is items[0])
    if source.random() < 0.5:
        layout.fields[at:at] = [Field(f.label, f.owner, f.form, f.value) for f in items]
        count.value = count.number + 1
    else:
        del layout.fields[at : at + len(items)]
        count.value = count.number - 1


def exchanged(layout: Layout, source: random.Random) -> None:
    """Two tensors in each other's place; sound where their sizes allow it."""
    first, second = source.sample(layout.tensors(), 2)
    first.offset.value, second.offset.value = second.offset.value, first.offset.value


def retyped(layout: Layout, source: random.Random) -> None:
    """A few tensors of another type, with bytes to match: sound where the type is supported there."""
    for _ in range(source.choice([1, 2, 6])):
        tensor = source.choice(layout.tensors())
        kind = GGMLQuantizationType(source.choice(KNOWN_TYPES))
        if tensor.dims[0].number % GGML_QUANT_SIZES[kind][0] == 0:
            tensor.kind.value = kind.value
            layout.move_to_end(tensor, content(tensor, source))


def reshaped(layout: Layout, source: random.Random) -> None:
    """The model with another width, length or vocabulary throughout: sound if the sizes are."""
    key = source.choice(_SIZES)
    change = source.choice([1, -1, 3, 8, 16, -16, 32])
    for tensor in grow(layout, key, lambda size: max(1, size + change)):
        kind = GGMLQuantizationType(tensor.kind.number)
        if tensor.dims[0].number % GGML_QUANT_SIZES[kind][0]:
            tensor.kind.value = source.choice([0, 1, 30])  # F32, F16, BF16
        layout.move_to_end(tensor, content(tensor, source))


def bad_content(layout: Layout, source: random.Random) -> None:
    """Weights of arbitrary bits: scales that are NaN, infinite or huge."""
    tensor = source.choice(layout.tensors())
    begin = tensor.offset.number
    for _ in range(source.choice([1, 8, 64])):
        at = begin + source.randrange(tensor.size)
        layout.data[at : at + 4] = source.choice(
            [b"\xff\xff\xff\xff", b"\x00\x7c\x80\x7f", source.randbytes(4)]
        )


_SIZES = ("embedding_length", "feed_forward_length", "vocabulary")


def grow(layout: Layout, key: str, change: Callable[[int], int]) -> list[Tensor]:
    """Change one size wherever it stands, in metadata and dims; the tensors that have it."""
    tensors = layout.tensors()
    embedding = next(tensor for tensor in tensors if tensor.name == "token_embd.weight")
    if key == "vocabulary":
        old, numbers = embedding.dims[1].number, []
    else:
        field = next(item for item in layout.labelled("value") if item.owner.endswith(f".{key}"))
        old, numbers = field.number, [field]
    new, changed = change(old), []
    for tensor in tensors:
        fields = [dim for dim in tensor.dims if dim.number == old]
        numbers += fields
        changed += [tensor] if fields else []
    for field in numbers:
        field.value = new
    return changed


def content(tensor: Tensor, source: random.Random) -> bytes:
    """Finite weights: bytes that are moderate as a scale wherever they fall."""
    return source.randbytes(tensor.size).translate(_MODERATE)


# In the order they are applied: first those that need a sound layout.
STRUCTURAL: dict[str, Callable[[Layout, random.Random], None]] = {
    rule.__name__: rule
    for rule in (
        reshaped,
        retyped,
        bad_content,
        exchanged,
        bent_offset,
        overlap,
        oversized,
        bent_dim,
        bent_type,
        bent_rank,
        bent_alignment,
        bent_count,
        bent_length,
        bent_value,
        bent_kind,
        bent_text,
        twice,
    )
}


def truncated(data: bytes, header: int, source: random.Random) -> bytes:
    """The beginning of the file."""
    return data[: source.choice([source.randrange(header), source.randrange(len(data)), len(data) - 1])]


def flipped(data: bytes, header: int, source: random.Random) -> bytes:
    """Some bytes replaced, mostly in the header."""
    changed = bytearray(data)
    for _ in range(source.choice([1, 1, 4, 32])):
        at = source.randrange(source.choice([header, header, len(data)]))
        changed[at] = source.choice([0, 1, 0x7F, 0x80, 0xFF, source.randrange(256)])
    return bytes(changed)


def shifted(data: bytes, header: int, source: random.Random) -> bytes:
    """A few bytes missing or in excess."""
    at, count = source.randrange(header), source.randrange(1, 9)
    return data[:at] + (data[at + count :] if source.random() < 0.5 else source.randbytes(count) + data[at:])


BYTEWISE: dict[str, Callable[[bytes, int, random.Random], bytes]] = {
    rule.__name__: rule for rule in (flipped, shifted, truncated)
}
