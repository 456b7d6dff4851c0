"""Published EAGLE heads (Li et al., ICML 2024) as drafter blocks.

A head is an ``fc`` over [embedding, state], with or without a bias, and one Llama layer without its first
norm; the state is the model's last one behind the final norm, which the file has not. Later kinds of EAGLE
(several layers read, norms before ``fc``, a vocabulary of its own) are other things, and are refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from specee.errors import BackendUnavailableError, CheckpointError, UnsupportedModelError
from specee.models.blocks import FLOATS, widen
from specee.models.checkpoint import Checkpoint
from specee.models.drafter_parts import FITTED, DrafterParts, shapes
from specee.models.hf_config import read_config
from specee.models.huggingface import read_json
from specee.models.safetensors_files import SafetensorsSource
from specee.types import ModelConfig

Floats = npt.NDArray[np.float32]
Read = Callable[[str], Floats]

_NAMES = {
    "fc": "fc.weight",
    "fc_bias": "fc.bias",
    "mlp_norm": "layers.0.post_attention_layernorm.weight",
    **{role: f"layers.0.self_attn.{role}_proj.weight" for role in ("q", "k", "v", "o")},
    **{role: f"layers.0.mlp.{role}_proj.weight" for role in ("gate", "up", "down")},
}
_EMBEDDING = "embed_tokens.weight"
_IGNORED = "layers.0.self_attn.rotary_emb.inv_freq"
_SAME = ("hidden_size", "num_heads", "num_kv_heads", "head_dim", "vocab_size", "rope")
_PICKLED = "pytorch_model.bin"
_FAR = (
    0.5  # of the embedding's size: quantising moves it by a tenth, another model's is as far as it is large
)
_GIVE = "give the head that was made for this model"
_LARGEST = float(np.finfo(np.float16).max)


def read_eagle(folder: Path, checkpoint: Checkpoint) -> DrafterParts:
    """The head in ``folder`` as a block for the model of ``checkpoint``, which it has to be made for.

    Raises CheckpointError for files that are missing, damaged or of another model, UnsupportedModelError for
    heads of another kind, BackendUnavailableError where the weights are a pickled file and there is no torch.
    """
    values = read_json(folder / "config.json", required=True)
    where = str(folder / "config.json")
    _, config = read_config(values, where)
    _check_config(config, checkpoint.config, where)
    shapes_found, read = _opened(folder)
    _check_names(shapes_found, folder, bias=bool(values.get("bias", False)))
    _check_shapes(shapes_found, checkpoint.config, config.intermediate_size, folder)
    if _EMBEDDING in shapes_found:
        _check_embedding(read, checkpoint, folder)
    hidden = checkpoint.config.hidden_size
    arrays = {part: _sound(read(name), name, folder) for part, name in _NAMES.items() if name in shapes_found}
    arrays.setdefault("fc_bias", np.zeros(hidden, np.float32))
    state_norm = next(values for role, _, values in checkpoint.norms() if role == "final_norm")
    without = dict.fromkeys(FITTED, np.zeros(0, np.float32))
    return DrafterParts((checkpoint.config.num_layers,), state_norm[None], **arrays, **without)


def _check_config(head: ModelConfig, model: ModelConfig, where: str) -> None:
    if head.num_layers != 1:
        raise UnsupportedModelError(f"{where}: a head of {head.num_layers} layers; heads of one are read")
    for name in _SAME:
        own, wanted = getattr(head, name), getattr(model, name)
        if own != wanted:
            raise CheckpointError(f"{where}: {name} is {own}, and the model's is {wanted}; {_GIVE}")
    if not math.isclose(head.norm_eps, model.norm_eps, rel_tol=1e-3):
        raise CheckpointError(
            f"{where}: rms_norm_eps is {head.norm_eps}, and the model's is {model.norm_eps}; {_GIVE}"
        )


def _opened(folder: Path) -> tuple[dict[str, tuple[int, ...]], Read]:
    """Shapes by name, and what reads a tensor."""
    pickled = folder / _PICKLED
    if pickled.is_file() and not list(folder.glob("*.safetensors*")):
        tensors = _unpickled(pickled)
        return {name: array.shape for name, array in tensors.items()}, tensors.__getitem__
    source = SafetensorsSource(folder)
    for name, info in source.tensors.items():
        if info.dtype not in FLOATS and name != _IGNORED:
            raise UnsupportedModelError(
                f"{folder}: tensor {name!r} is {info.dtype}; allowed are {', '.join(FLOATS)}"
            )
    return {name: info.shape for name, info in source.tensors.items()}, lambda name: _read(source, name)


def _read(source: SafetensorsSource, name: str) -> Floats:
    info = source.tensors[name]
    raw = source.read(name, 0, info.shape[0])
    return widen(raw, info.dtype, 1).reshape(info.shape)


def _unpickled(path: Path) -> dict[str, Floats]:
    """Tensors alone: nothing in the file is run."""
    try:
        import torch
    except ImportError as error:
        raise BackendUnavailableError(
            f'{path} needs torch to be read ({error}): install it with pip install "specee[hf]", or convert '
            "the file to safetensors"
        ) from error
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
        return {str(name): tensor.float().numpy() for name, tensor in found.items()}
    except Exception as error:  # whatever a damaged file makes torch raise
        raise CheckpointError(
            f"{path}: no complete file of tensors ({error}). It is damaged, or holds something else; fetch "
            "it again."
        ) from error


def _check_names(found: Mapping[str, object], folder: Path, *, bias: bool) -> None:
    known = {*_NAMES.values(), _EMBEDDING, _IGNORED}
    if unknown := sorted(found.keys() - known):
        raise UnsupportedModelError(
            f"{folder}: tensor {unknown[0]!r} ({len(unknown)} in all) has no place in a head of the first "
            "EAGLE; other kinds are not read"
        )
    needed = set(_NAMES.values()) - (set() if bias else {_NAMES["fc_bias"]})
    if missing := sorted(needed - found.keys()):
        raise CheckpointError(
            f"{folder}: tensor {missing[0]!r} is missing ({len(missing)} in all). Fetch it again."
        )


def _check_shapes(
    found: Mapping[str, tuple[int, ...]], config: ModelConfig, inner: int, folder: Path
) -> None:
    wanted = shapes(config, 1, inner, plain=True)
    named = {name: wanted[part] for part, name in _NAMES.items()}
    named[_EMBEDDING] = (config.vocab_size, config.hidden_size)
    for name in sorted(found.keys() & named.keys()):
        if tuple(found[name]) != named[name]:
            raise CheckpointError(
                f"{folder}: tensor {name!r} has shape {tuple(found[name])}, and must be {named[name]}; "
                f"{_GIVE}"
            )


def _check_embedding(read: Read, checkpoint: Checkpoint, folder: Path) -> None:
    """It is the model's own, and tells models of one shape apart; some rows are enough for that."""
    slab = next(slab for slab in checkpoint.slabs() if slab.role == "embed")
    own = widen(slab.array, slab.format, checkpoint.config.hidden_size)
    theirs = read(_EMBEDDING)[slab.row_begin : slab.row_begin + len(own)]
    if not np.linalg.norm(theirs - own) <= _FAR * np.linalg.norm(own):
        raise CheckpointError(f"{folder}: its embedding is not that of {checkpoint.source}; {_GIVE}")


def _sound(values: Floats, name: str, folder: Path) -> Floats:
    if not (np.abs(values) <= _LARGEST).all():
        raise CheckpointError(
            f"{folder}: tensor {name!r} holds values that are no numbers or over {_LARGEST:.0f}. Fetch it "
            "again."
        )
    return np.ascontiguousarray(values, np.float32)
