"""A local Hugging Face folder -> Checkpoint parts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from specee.errors import CheckpointError
from specee.models.assemble import build_table
from specee.models.checkpoint import Checkpoint
from specee.models.families import IGNORED_HF
from specee.models.hf_config import read_config
from specee.models.safetensors_files import SafetensorsSource
from specee.models.tokenizer import Tokenizer
from specee.types import ModelConfig

_BOOKKEEPING = ("_from_model_config", "transformers_version")


def open_folder(folder: Path, description: str | None = None) -> Checkpoint:
    """Open a folder with config.json and safetensors weights; reads no tensor data.

    tokenizer.json and generation_config.json are used if present. Raises CheckpointError and
    UnsupportedModelError as described in :func:`specee.models.checkpoint.open_checkpoint`.
    """
    values = read_json(folder / "config.json", required=True)
    family, config = read_config(values, str(folder / "config.json"))
    source = SafetensorsSource(folder)
    table = build_table(source, config, family.hf_names, IGNORED_HF, where=str(folder))
    dtypes = {source.tensors[entry.name].dtype for entry in table.entries}
    generation = read_json(folder / "generation_config.json")
    tokenizer = Tokenizer.from_folder(folder) if (folder / "tokenizer.json").is_file() else None
    return Checkpoint(
        config=config,
        table=table,
        tokenizer=tokenizer,
        eos_token_ids=eos_ids(generation or values, config, str(folder)),
        pad_token_id=pad_id(generation, values, config),
        generation_defaults={key: value for key, value in generation.items() if key not in _BOOKKEEPING},
        source=description or str(folder),
        format="safetensors " + "/".join(sorted(dtype.lower() for dtype in dtypes)),
    )


def read_json(path: Path, *, required: bool = False) -> dict[str, Any]:
    """The object in a JSON file, {} if an optional one is absent. Raises CheckpointError."""
    if not path.is_file() and not required:
        return {}
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{path}: not found. Point to a folder with config.json and weights."
        ) from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read as JSON ({error}). Fetch it again.") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: holds a {type(values).__name__}; it must hold a JSON object.")
    return values


def eos_ids(values: Mapping[str, Any], config: ModelConfig, where: str) -> tuple[int, ...]:
    """End-of-sequence ids: an integer, a list of them, or none. Raises CheckpointError."""
    given = values.get("eos_token_id")
    ids = [] if given is None else given if isinstance(given, list) else [given]
    for token in ids:
        if isinstance(token, bool) or not isinstance(token, int) or not 0 <= token < config.vocab_size:
            raise CheckpointError(
                f"{where}: eos_token_id is {given!r}; ids must be integers from 0 to {config.vocab_size - 1}."
            )
    return tuple(ids)


def pad_id(generation: Mapping[str, Any], values: Mapping[str, Any], config: ModelConfig) -> int | None:
    """The padding id: generation_config.json, else config.json; one outside the vocabulary is none.

    The tokenizer's own is not asked: transformers' ``generate`` never sees it.
    """
    for given in (generation.get("pad_token_id"), values.get("pad_token_id")):
        if isinstance(given, int) and 0 <= given < config.vocab_size:
            return given
    return None
