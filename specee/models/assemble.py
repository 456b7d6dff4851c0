"""Named tensors of a source -> the weight table, slab by slab."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from specee.errors import CheckpointError
from specee.models.blocks import FLOATS, QUANTISED, Array, Bytes, Floats, dequantise, quantise, widen
from specee.models.source import TensorSource
from specee.models.table import Key, Slab, shapes
from specee.models.validate import check_finite, check_names, check_quantised, check_tensor
from specee.types import ModelConfig

SLAB_BYTES = 8 << 20
DTYPES = tuple(FLOATS)


@dataclass(frozen=True)
class Entry:
    """One tensor of the table and where it is found.

    ``twin`` names a second copy in the file that must be equal (a tied head stored twice).
    ``interleaved`` is the head size if rows are in interleaved rope order within each head, else 0.
    """

    role: str
    layer: int
    name: str
    shape: tuple[int, ...]
    twin: str | None = None
    interleaved: int = 0


@dataclass(frozen=True)
class WeightTable:
    """A checked table: every tensor the configuration requires, each covered exactly once."""

    source: TensorSource
    entries: tuple[Entry, ...]

    @property
    def types(self) -> dict[Key, str]:
        """What each tensor is in the file."""
        return {(entry.role, entry.layer): self.source.tensors[entry.name].dtype for entry in self.entries}

    def slabs(
        self, formats: Mapping[Key, str] | None = None, without: Collection[Key] = ()
    ) -> Iterator[Slab]:
        """Read the table in order, at most about 8 MiB of float32 at a time, leaving tensors ``without`` out.

        ``formats`` says what every matrix will be stored in: one stored quantised comes in blocks of that
        format, made here if the file has others; everything else comes as floats of any format. Without
        ``formats`` all come as floats.

        Raises CheckpointError for NaN or infinite weights, a tied head that differs from the
        embedding, and files that shrank since they were opened.
        """
        for entry in self.entries:
            if (entry.role, entry.layer) in without:
                continue
            stored = (formats or {}).get((entry.role, entry.layer), "F32")
            for begin, end in _ranges(entry):
                array, form = self._rows(entry, begin, end)
                if stored in QUANTISED and form != stored:
                    array = self._quantised(entry, begin, widen(array, form, entry.shape[1]), stored)
                    form = stored
                elif form in QUANTISED and form != stored:
                    array, form = widen(array, form, entry.shape[1]), "F32"
                yield Slab(entry.role, entry.layer, begin, array, form)

    def norms(self) -> Iterator[tuple[str, int, Floats]]:
        """Role, layer and fp32 values of every norm; reads nothing else. Raises CheckpointError."""
        for entry in self.entries:
            if entry.role.endswith("norm"):
                array, form = self._rows(entry, 0, entry.shape[0])
                yield entry.role, entry.layer, widen(array, form, 1)

    def _rows(self, entry: Entry, begin: int, end: int) -> tuple[Array, str]:
        """Checked rows, in the file's format where there are kernels for it, else as float32."""
        info = self.source.tensors[entry.name]
        array, form = self.source.read(entry.name, begin, end), info.dtype
        twin = None if entry.twin is None else self.source.read(entry.twin, begin, end)
        equal = twin is None or np.array_equal(array, twin)
        if form not in FLOATS and form not in QUANTISED:
            array, form = dequantise(array.view(np.uint8), form, entry.shape[1]), "F32"
        check_finite(array, form, entry.name, begin, info.where)
        if not equal:
            raise CheckpointError(
                f"{info.where}: tie_word_embeddings is true, but {entry.twin!r} differs from {entry.name!r} "
                f"in rows {begin} to {end - 1}. Set tie_word_embeddings to false to use both."
            )
        return rotate_half_order(array, entry.interleaved) if entry.interleaved else array, form

    def _quantised(self, entry: Entry, begin: int, rows: Floats, form: str) -> Bytes:
        blocks = quantise(rows, form)
        check_quantised(blocks, form, entry.name, begin, self.source.tensors[entry.name].where)
        return blocks


def build_table(
    source: TensorSource,
    config: ModelConfig,
    names: Mapping[str, str],
    ignored: Sequence[str],
    *,
    dtypes: Sequence[str] = DTYPES,
    interleaved: bool = False,
    where: str,
) -> WeightTable:
    """Match the tensors of ``source`` with what ``config`` requires; reads no tensor data.

    ``names`` maps roles to name patterns. ``interleaved`` marks files whose query and key rows are
    in interleaved rope order. Raises CheckpointError or UnsupportedModelError naming file and tensor.
    """
    twin = names["head"] if config.tied_head and names["head"] in source.tensors else None
    entries = []
    for (role, layer), shape in shapes(config).items():
        rope_rows = interleaved and role in ("q", "k", "q_bias", "k_bias")
        name = names[role].format(layer)
        entries.append(
            Entry(
                role,
                layer,
                name,
                shape,
                twin=twin if role == "embed" else None,
                interleaved=config.head_dim if rope_rows else 0,
            )
        )
    copies = [] if twin is None else [twin]
    check_names([*(entry.name for entry in entries), *copies], ignored, source.tensors, where)
    for entry in entries:
        # No file has quantised vectors: their rows would be single weights.
        allowed = dtypes if len(entry.shape) > 1 else DTYPES
        check_tensor(entry.name, source.tensors[entry.name], entry.shape, allowed)
    for name in copies:
        check_tensor(name, source.tensors[name], (config.vocab_size, config.hidden_size), dtypes)
    return WeightTable(source, tuple(entries))


def rotate_half_order(rows: Array, head_dim: int) -> Array:
    """Reorder the rows of whole heads from interleaved to rotate-half rope order.

    Interleaved order pairs rows (2i, 2i+1) of a head, rotate-half pairs (i, i + head_dim/2); so
    row 2i + s comes from i + s * head_dim/2. ``rows`` is (n * head_dim, ...): floats or blocks, a row
    stays as it is.
    """
    split = rows.reshape(-1, head_dim // 2, 2, *rows.shape[1:])
    ordered: Array = split.swapaxes(1, 2).reshape(rows.shape)
    return ordered


def _ranges(entry: Entry) -> Iterator[tuple[int, int]]:
    rows, unit = entry.shape[0], entry.interleaved or 1
    row_bytes = 4 * int(np.prod(entry.shape[1:], dtype=np.int64))
    step = max(1, SLAB_BYTES // (row_bytes * unit)) * unit
    for begin in range(0, rows, step):
        yield begin, min(begin + step, rows)
