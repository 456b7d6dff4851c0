"""A GGUF file as a list of named fields, so that any one of them can be made to lie.

It reads sound files only (version 3, little endian) and checks nothing; it shares no line with the parser
under test.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
SCALAR_KINDS = tuple(_SCALARS)


@dataclass
class Field:
    """One number or text: ``label`` is what it means, ``owner`` the key or tensor that it belongs to.

    ``form`` is its struct letter, empty for raw bytes.
    """

    label: str
    owner: str
    form: str
    value: int | float | bytes

    def packed(self) -> bytes:
        """Its bytes; integers wrap around as a writer's would."""
        if isinstance(self.value, bytes):
            return self.value
        if self.form in "fd?":
            return struct.pack(f"<{self.form}", self.value)
        size = struct.calcsize(f"<{self.form}")
        return (int(self.value) % (1 << 8 * size)).to_bytes(size, "little")

    @property
    def number(self) -> int:
        """Its value, which is an integer."""
        assert isinstance(self.value, int)
        return self.value


@dataclass
class Tensor:
    """Where one tensor's fields are."""

    name: str
    dims: list[Field]
    kind: Field
    offset: Field

    @property
    def size(self) -> int:
        """Bytes that its dims and type say."""
        block, block_bytes = GGML_QUANT_SIZES[GGMLQuantizationType(self.kind.number)]
        elements = 1
        for dim in self.dims:
            elements *= dim.number
        return elements // block * block_bytes


@dataclass
class Layout:
    """Header fields in file order, and everything after them."""

    fields: list[Field]
    data: bytearray
    alignment: int
    entries: dict[str, list[Field]] = field(default_factory=dict)  # all fields of a key, or of a tensor

    def packed(self) -> bytes:
        """The file."""
        header = b"".join(item.packed() for item in self.fields)
        return header + bytes(-len(header) % self.alignment) + self.data

    @property
    def header_size(self) -> int:
        """Bytes before the padding."""
        return sum(len(item.packed()) for item in self.fields)

    @property
    def file_size(self) -> int:
        """Bytes of the file."""
        return self.data_begin + len(self.data)

    @property
    def data_begin(self) -> int:
        """First byte that offsets count from."""
        return -(-self.header_size // self.alignment) * self.alignment

    def labelled(self, *labels: str) -> list[Field]:
        """Fields with one of these labels."""
        return [item for item in self.fields if item.label in labels]

    def tensors(self) -> list[Tensor]:
        """Every tensor of the directory."""
        return [
            Tensor(
                items[1].owner,
                [item for item in items if item.label == "dim"],
                *(next(item for item in items if item.label == label) for label in ("type", "offset")),
            )
            for items in self.entries.values()
            if items[0].label == "name-length"
        ]

    def value(self, key: str) -> Field:
        """The field that holds a scalar metadata value."""
        return next(item for item in self.entries[key] if item.label == "value")

    def move_to_end(self, tensor: Tensor, content: bytes) -> None:
        """Give a tensor new bytes behind all others."""
        self.data += bytes(-len(self.data) % self.alignment)
        tensor.offset.value = len(self.data)
        self.data += content


def read_layout(data: bytes) -> Layout:
    """Take a sound file apart."""
    reader = _Reader(data)
    fields = list(reader.header())
    layout = Layout(fields, bytearray(), 32)
    for item in fields:
        if item.owner:
            layout.entries.setdefault(item.owner, []).append(item)
    layout.alignment = layout.value("general.alignment").number
    assert reader.at == layout.header_size
    layout.data = bytearray(data[layout.data_begin :])
    assert layout.packed() == data, "a sound file must come out as it went in"
    return layout


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def header(self) -> Iterator[Field]:
        yield self._raw("magic", "", 4)
        yield self._number("version", "", "I")
        tensors, entries = self._number("tensor-count", "", "Q"), self._number("entry-count", "", "Q")
        yield from (tensors, entries)
        for _ in range(entries.number):
            yield from self._entry()
        for _ in range(tensors.number):
            yield from self._tensor()

    def _entry(self) -> Iterable[Field]:
        *key, owner = self._text("key", None)
        kind = self._number("kind", owner, "I")
        yield from (*key, kind)
        if kind.number == STRING:
            yield from self._text("text", owner)[:2]
        elif kind.number != ARRAY:
            yield self._number("value", owner, _SCALARS[kind.number])
        else:
            item, count = self._number("item-kind", owner, "I"), self._number("item-count", owner, "Q")
            yield from (item, count)
            for _ in range(count.number):
                if item.number == STRING:
                    yield from self._text("item", owner)[:2]
                else:
                    yield self._number("item", owner, _SCALARS[item.number])

    def _tensor(self) -> Iterable[Field]:
        *name, owner = self._text("name", None)
        rank = self._number("rank", owner, "I")
        dims = [self._number("dim", owner, "Q") for _ in range(rank.number)]
        yield from (*name, rank, *dims)
        yield self._number("type", owner, "I")
        yield self._number("offset", owner, "Q")

    def _text(self, label: str, owner: str | None) -> tuple[Field, Field, str]:
        """Length, bytes, and the owner: the text itself unless given."""
        length = self._number(f"{label}-length", "", "Q")
        text = self._raw(label, "", length.number)
        assert isinstance(text.value, bytes)
        length.owner = text.owner = text.value.decode() if owner is None else owner
        return length, text, text.owner

    def _raw(self, label: str, owner: str, count: int) -> Field:
        self.at += count
        return Field(label, owner, "", self.data[self.at - count : self.at])

    def _number(self, label: str, owner: str, form: str) -> Field:
        begin, self.at = self.at, self.at + struct.calcsize(f"<{form}")
        return Field(label, owner, form, struct.unpack(f"<{form}", self.data[begin : self.at])[0])
