"""Speculator files that come with the package, for models that many begin with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from specee.errors import CheckpointError
from specee.models.checkpoint import Checkpoint
from specee.models.speculator import Speculator, fingerprint, read_speculator
from specee.types import ModelConfig

FOLDER = Path(__file__).resolve().parent.parent / "speculators"
"""Each named for its model, with the shape of the model in its metadata."""


def packaged_speculator(checkpoint: Checkpoint, folder: Path | None = None) -> Speculator | None:
    """What :func:`packaged_file` finds, read. Raises CheckpointError for a damaged file."""
    path = packaged_file(checkpoint, folder)
    if path is None:
        return None
    return read_speculator(path, checkpoint.config, fingerprint(checkpoint.config, checkpoint.norms()))


def packaged_file(checkpoint: Checkpoint, folder: Path | None = None) -> Path | None:
    """The file fitted to this model, whatever format its weights are in; None if there is none.

    ``folder``: None for :data:`FOLDER`. Raises CheckpointError for a damaged file in it.
    """
    shape = shape_of(checkpoint.config)
    able = {path: said for path, said in _files(folder or FOLDER) if said.get("shape") == shape}
    if not able:
        return None  # the norms of other models need not be read
    mark = fingerprint(checkpoint.config, checkpoint.norms())
    return next((path for path, said in able.items() if said.get("fingerprint") == mark), None)


def shape_of(config: ModelConfig) -> str:
    """What tells most models apart without reading them."""
    return f"{config.num_layers} layers of {config.hidden_size}, {config.vocab_size} tokens"


def _files(folder: Path) -> Iterator[tuple[Path, dict[str, str]]]:
    """Paths and metadata. Raises CheckpointError."""
    import safetensors

    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safetensors.safe_open(path, framework="numpy") as file:
                yield path, file.metadata() or {}
        except (safetensors.SafetensorError, OSError) as error:
            raise CheckpointError(
                f"{path}: no complete speculator file ({error}). Install specee again, or load with "
                "speculator=False"
            ) from error
