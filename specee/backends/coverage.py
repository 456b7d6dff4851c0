"""That slabs cover every tensor of a model's table exactly once, in formats that can be stored."""

from __future__ import annotations

from collections.abc import Mapping

from specee.errors import CheckpointError
from specee.models.blocks import FLOATS, row_bytes
from specee.models.table import Key, Slab, shapes
from specee.types import ModelConfig


class Coverage:
    """Counts rows as they come. ``formats`` says what every matrix is stored in; vectors are F32."""

    def __init__(self, config: ModelConfig, formats: Mapping[Key, str]) -> None:
        self._shapes = shapes(config)
        self._formats = formats
        self._covered = dict.fromkeys(self._shapes, 0)

    def add(self, slab: Slab) -> tuple[Key, slice]:
        """Where the slab's rows go. Raises CheckpointError for one that does not fit the table."""
        slab.check_dtype()
        key = (slab.role, slab.layer)
        shape = self._shapes.get(key)
        end = slab.row_begin + len(slab.array)
        if (
            shape is None
            or slab.array.shape[1:] != _width(slab, shape)
            or slab.row_begin < 0
            or end > shape[0]
        ):
            raise CheckpointError(
                f"slab {slab.role!r} of layer {slab.layer}, rows {slab.row_begin}..{end}, {slab.format} of "
                f"shape {slab.array.shape}, does not fit the table, which has {shape}"
            )
        stored = self._formats.get(key, "F32")
        if slab.format != stored and not (slab.format in FLOATS and stored in FLOATS):
            raise CheckpointError(
                f"slab {slab.role!r} of layer {slab.layer} is {slab.format} for a matrix stored {stored}; "
                "floats can be converted into each other, blocks have to be those of the stored format"
            )
        self._covered[key] += len(slab.array)
        return key, slice(slab.row_begin, end)

    def whole(self, key: Key) -> None:
        """All rows of a tensor are there."""
        self._covered[key] += self._shapes[key][0]

    def is_whole(self, key: Key) -> bool:
        """Whether as many rows have come as the tensor has."""
        return self._covered[key] == self._shapes[key][0]

    def check(self) -> None:
        """Raise CheckpointError unless every tensor is covered exactly once."""
        short = [key for key in self._covered if not self.is_whole(key)]
        if short:
            role, layer = short[0]
            got, wanted = self._covered[role, layer], self._shapes[role, layer][0]
            raise CheckpointError(
                f"tensor {role!r} of layer {layer}: got {got} rows of {wanted} "
                f"({len(short)} tensors incomplete); the checkpoint must cover every tensor exactly once"
            )


def _width(slab: Slab, shape: tuple[int, ...]) -> tuple[int, ...]:
    """What follows the rows in a slab's shape: columns, or bytes of block rows."""
    if slab.format in FLOATS or len(shape) == 1:
        return shape[1:]
    return (row_bytes(slab.format, shape[1]),)
