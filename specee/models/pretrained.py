"""A transformers model in memory -> Checkpoint, without copying it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from specee.errors import CheckpointError
from specee.models.assemble import WeightTable, build_table
from specee.models.blocks import Array
from specee.models.checkpoint import Checkpoint
from specee.models.families import FAMILIES, IGNORED_HF
from specee.models.hf_config import read_config
from specee.models.huggingface import eos_ids, pad_id
from specee.models.source import TensorInfo
from specee.models.table import Key
from specee.models.tokenizer import Tokenizer

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

_DTYPES = {"torch.float32": "F32", "torch.float16": "F16", "torch.bfloat16": "BF16"}


class PretrainedSource:
    """The parameters of a live model (a TensorSource); later changes to it are seen."""

    def __init__(self, state: Mapping[str, torch.Tensor], where: str) -> None:
        self._state = state
        self._infos = {
            name: TensorInfo(tuple(tensor.shape), _DTYPES.get(str(tensor.dtype), str(tensor.dtype)), where)
            for name, tensor in state.items()
        }
        for name, tensor in state.items():
            if tensor.is_meta:
                raise CheckpointError(
                    f"{where}: tensor {name!r} is on the meta device and has no data. "
                    "Load the model's weights first."
                )

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """Every entry of the state dictionary."""
        return self._infos

    def read(self, name: str, begin: int, end: int) -> Array:
        """Rows ``begin .. end``, copied from another device if need be."""
        import torch

        rows = self._state[name][begin:end].detach().cpu().contiguous()
        if rows.dtype == torch.bfloat16:
            bits: Array = rows.view(torch.int16).numpy().view(np.uint16)
            return bits
        array: Array = rows.numpy()
        return array

    def tensor(self, name: str) -> torch.Tensor:
        """The parameter itself."""
        return self._state[name].detach()


def tensors_on(table: WeightTable, device: str, formats: Mapping[Key, str]) -> dict[Key, torch.Tensor]:
    """See :meth:`.Checkpoint.tensors_on`."""
    import torch

    source, wanted, found = table.source, torch.device(device), {}
    assert isinstance(source, PretrainedSource)
    for entry in table.entries:
        key, tensor = (entry.role, entry.layer), source.tensor(entry.name)
        twin = tensor if entry.twin is None else source.tensor(entry.twin)
        same = twin.data_ptr() == tensor.data_ptr()
        if formats.get(key) != "BF16" or tensor.dtype != torch.bfloat16 or not same or entry.interleaved:
            continue  # slabs convert, and compare twins
        if tensor.device != wanted or not tensor.is_contiguous():
            continue
        if not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(
                f"{source.tensors[entry.name].where}: tensor {entry.name!r} has NaN or infinite values; load "
                "weights that are finite"
            )
        found[key] = tensor
    return found


def open_pretrained(model: PreTrainedModel) -> Checkpoint:
    """Open a ``PreTrainedModel`` of a supported architecture with fp32, bf16 or fp16 weights.

    The tokenizer is read from the model's own local folder, if it came from one. Raises
    UnsupportedModelError and CheckpointError like :func:`specee.models.checkpoint.open_checkpoint`.
    """
    where = f"{type(model).__name__} in memory"
    values = {**model.config.to_dict(), "architectures": [_architecture(model)]}
    family, config = read_config(values, where)
    source = PretrainedSource(model.state_dict(), where)
    table = build_table(source, config, family.hf_names, IGNORED_HF, where=where)
    folder = Path(getattr(model, "name_or_path", "") or ".")
    tokenizer = (
        Tokenizer.from_folder(folder)
        if model.name_or_path and (folder / "tokenizer.json").is_file()
        else None
    )
    generation = _generation_defaults(model)
    dtypes = {source.tensors[entry.name].dtype.lower() for entry in table.entries}
    return Checkpoint(
        config=config,
        table=table,
        tokenizer=tokenizer,
        eos_token_ids=eos_ids(generation or values, config, where),
        pad_token_id=pad_id(generation, values, config),
        generation_defaults=generation,
        source=where,
        format="transformers " + "/".join(sorted(dtypes)),
    )


def _architecture(model: PreTrainedModel) -> str:
    """The supported class that ``model`` is or derives from, else its own name for the error."""
    known = {family.architecture for family in FAMILIES}
    bases = [base.__name__ for base in type(model).__mro__ if base.__name__ in known]
    return bases[0] if bases else type(model).__name__


def _generation_defaults(model: PreTrainedModel) -> dict[str, Any]:
    generation = getattr(model, "generation_config", None)
    if generation is None:
        return {}
    values: dict[str, Any] = generation.to_diff_dict()
    return {
        key: value
        for key, value in values.items()
        if key not in ("_from_model_config", "transformers_version")
    }
