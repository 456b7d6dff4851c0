"""A GGUF file -> Checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np
from gguf.constants import GGML_QUANT_SIZES
from gguf.quants import dequantize

from specee.models.assemble import build_table
from specee.models.blocks import FLOATS, Array, dtype_of
from specee.models.checkpoint import Checkpoint
from specee.models.families import IGNORED_GGUF
from specee.models.gguf_config import gguf_eos_ids, read_gguf_config
from specee.models.gguf_header import GGUFHeader, read_header
from specee.models.gguf_tokenizer import tokenizer_from_gguf
from specee.models.source import TensorInfo, read_exactly


class GGUFSource:
    """The tensors of one GGUF file (a TensorSource)."""

    def __init__(self, header: GGUFHeader) -> None:
        self.header = header
        self._infos = {
            tensor.name: TensorInfo(tensor.shape, tensor.type.name, str(header.path))
            for tensor in header.tensors.values()
        }

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """Every tensor of the file."""
        return self._infos

    def read(self, name: str, begin: int, end: int) -> Array:
        """Rows ``begin .. end``; see :class:`specee.models.source.TensorSource`."""
        tensor = self.header.tensors[name]
        row = tensor.size // tensor.shape[0]
        data = read_exactly(self.header.path, tensor.offset + begin * row, (end - begin) * row)
        columns = tensor.shape[1:] if tensor.type.name in FLOATS else (row,)
        return data.view(dtype_of(tensor.type.name)).reshape(end - begin, *columns)


def open_gguf(path: Path) -> Checkpoint:
    """Open a GGUF file; reads its header and, for Llama-3 rope, one small tensor.

    Raises CheckpointError and UnsupportedModelError as described in
    :func:`specee.models.checkpoint.open_checkpoint`.
    """
    header = read_header(path)
    source = GGUFSource(header)
    family, config = read_gguf_config(header, source)
    table = build_table(
        source,
        config,
        family.gguf_names,
        IGNORED_GGUF,
        dtypes=readable_types(),
        interleaved=family.gguf_permuted,
        where=str(path),
    )
    tokenizer = tokenizer_from_gguf(header)
    return Checkpoint(
        config=config,
        table=table,
        tokenizer=tokenizer,
        eos_token_ids=gguf_eos_ids(header, config),
        pad_token_id=None if tokenizer is None else tokenizer.pad_token_id,
        generation_defaults={},
        source=str(path),
        format=f"gguf {_formats(header)}",
    )


@lru_cache(maxsize=1)
def readable_types() -> tuple[str, ...]:
    """Names of the tensor types that can be read: plain floats, and what gguf can dequantise."""
    readable = [*FLOATS]
    for kind, (_, block_bytes) in GGML_QUANT_SIZES.items():
        if kind.name in readable:
            continue
        try:
            dequantize(np.zeros((1, block_bytes), dtype=np.uint8), kind)
        except NotImplementedError:
            continue
        readable.append(kind.name)
    return tuple(readable)


def _formats(header: GGUFHeader) -> str:
    """Types of the matrices, most bytes first: the default model is ``Q4_1/Q8_0``."""
    sizes: dict[str, int] = {}
    for tensor in header.tensors.values():
        if len(tensor.shape) > 1:
            sizes[tensor.type.name] = sizes.get(tensor.type.name, 0) + tensor.size
    return "/".join(sorted(sizes, key=lambda name: -sizes[name]))
