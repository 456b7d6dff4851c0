"""Open any supported checkpoint: one entry point, one result."""

from __future__ import annotations

import re
import sys
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from specee.errors import CheckpointError, ConfigurationError
from specee.models.assemble import WeightTable
from specee.models.blocks import Floats
from specee.models.formats import Formats, made_formats, packed_formats
from specee.models.table import Key, Slab
from specee.models.tokenizer import Tokenizer
from specee.models.validate import check_context, check_vocabulary
from specee.types import ModelConfig, WeightFormat

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True)
class Checkpoint:
    """A model whose structure has been checked and whose weights can be read.

    ``eos_token_ids`` end a generation, ``generation_defaults`` is the content of
    generation_config.json, ``source`` and ``format`` describe where and how the weights are stored.
    """

    config: ModelConfig
    table: WeightTable
    tokenizer: Tokenizer | None
    eos_token_ids: tuple[int, ...]
    pad_token_id: int | None
    generation_defaults: dict[str, Any]
    source: str
    format: str

    @property
    def natural_weights(self) -> WeightFormat:
        """The weights closest to the file: packed for GGUF, fp32 if it is fp32 throughout, else bf16."""
        if self._container == "gguf":
            return "packed"
        return "fp32" if set(self.table.types.values()) == {"F32"} else "bf16"

    def formats(self, weights: WeightFormat) -> Formats:
        """What every matrix is stored in under that choice of weights.

        Raises ConfigurationError for ``packed`` if this is no GGUF file.
        """
        if weights != "packed":
            return made_formats(self.config, weights)
        if self._container != "gguf":
            raise ConfigurationError(
                f"weights='packed' keeps the formats of a GGUF file, but {self.source} is {self.format}: "
                "choose 'int8' or 'int4' to quantise it, or 'auto'"
            )
        return packed_formats(self.config, self.table.types)

    def slabs(self, formats: Formats | None = None, without: Collection[Key] = ()) -> Iterator[Slab]:
        """All weights, each tensor of :func:`specee.models.table.shapes` exactly once, row slabs in order.

        Tensors ``without`` are left out. As floats, or ready to be stored in ``formats``: see
        :meth:`.WeightTable.slabs`. Starts anew on each call. A slab is at most about 8 MiB of float32. Raises
        CheckpointError for NaN or infinite weights, those too large for the format, and files that changed
        after opening.
        """
        return self.table.slabs(formats, without)

    def tensors_on(self, device: str, formats: Formats) -> dict[Key, Tensor]:
        """Matrices that a model in memory has on that device in the very format they are to be stored in.

        Only those stored as BF16, for a backend to use where they are. ``device``: ``cpu`` or
        ``cuda:<index>``. Raises CheckpointError as :meth:`slabs` does.
        """
        if self._container != "transformers":
            return {}
        from specee.models.pretrained import tensors_on

        return tensors_on(self.table, device, formats)

    def norms(self) -> Iterator[tuple[str, int, Floats]]:
        """Role, layer and fp32 values of every norm, without reading a matrix: what a fingerprint is made of.

        Raises CheckpointError as :meth:`slabs` does.
        """
        return self.table.norms()

    @property
    def _container(self) -> str:
        return self.format.partition(" ")[0]


def open_checkpoint(
    source: str | Path | PreTrainedModel | None = None, *, max_context: int | None = None
) -> Checkpoint:
    """Open a model and check its structure; tensor data is read by :meth:`Checkpoint.slabs` only.

    ``source`` is None for the default model (fetched on first use), a local Hugging Face folder, a
    GGUF file, a hub id (``owner/name``), or a ``PreTrainedModel`` in memory. ``max_context`` limits
    ``config.max_position`` to fewer positions than the model's own.

    Raises UnsupportedModelError for an architecture, option or tensor format that is not supported,
    CheckpointError for missing, damaged or inconsistent files, CapacityError if ``max_context`` is
    more than the model's, DownloadError if the model has to be fetched and cannot.
    """
    checkpoint = _open(source)
    if checkpoint.tokenizer is not None:
        check_vocabulary(checkpoint.tokenizer.highest_id, checkpoint.config, checkpoint.source)
    if max_context is not None:
        check_context(max_context, checkpoint.config, checkpoint.source)
        checkpoint = replace(checkpoint, config=replace(checkpoint.config, max_position=max_context))
    return checkpoint


def _open(source: str | Path | PreTrainedModel | None) -> Checkpoint:
    if source is None:
        from specee.models.default_model import default_model_path

        return _open_path(default_model_path())
    if isinstance(source, (str, Path)):
        return _open_path(Path(source)) if Path(source).exists() else _open_hub(str(source))
    # A PreTrainedModel can only exist if transformers is already imported.
    transformers = sys.modules.get("transformers")
    if transformers is not None and isinstance(source, transformers.PreTrainedModel):
        from specee.models.pretrained import open_pretrained

        return open_pretrained(source)
    raise ConfigurationError(
        f"source has type {type(source).__name__}; it must be None, a folder, a GGUF file, a hub id, "
        "or a transformers PreTrainedModel."
    )


def _open_path(path: Path) -> Checkpoint:
    if path.is_dir():
        from specee.models.huggingface import open_folder

        return open_folder(path)
    from specee.models.gguf_file import open_gguf

    return open_gguf(path)


def _open_hub(name: str) -> Checkpoint:
    if not _HUB_ID.fullmatch(name) or name.endswith((".gguf", ".safetensors")):
        raise CheckpointError(
            f"{name}: no such file or folder, and not a hub id of the form 'owner/name'. Check the spelling."
        )
    from specee.models.hub import fetch_from_hub
    from specee.models.huggingface import open_folder

    return open_folder(fetch_from_hub(name), f"hub model {name}")
