"""What a speculator file holds: parts fitted to a frozen model that make its drafts better.

The file is one safetensors file. Metadata: ``format`` "specee-speculator", ``version`` "1", and
``fingerprint`` of the model it was fitted to. Tensors, none of them required: ``vocabulary`` (tokens,), I64
or I32; for each exit layer ``adapters.{layer}.norm`` (hidden,), ``.down`` (width, hidden), ``.up`` (hidden,
width), F32, BF16 or F16; ``drafter.{part}``, the same types, for each part that a block of
:class:`.DrafterParts` has, with the layers it reads in ``drafter.layers``, I64 or I32; ``exits.{part}``
likewise for :class:`.ExitParts`; and ``calibration.thresholds`` and ``.losses`` of :class:`.Calibration`,
whose weights are metadata.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from specee.errors import CheckpointError
from specee.models.blocks import FLOATS, widen
from specee.models.drafter_parts import FITTED, DrafterParts
from specee.models.exit_parts import Calibration, ExitParts
from specee.models.table import shapes
from specee.types import ModelConfig
from specee.whole_file import write_whole

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

_FORMAT, _VERSION = "specee-speculator", "1"
_INTEGERS = {"I64": "<i8", "I32": "<i4"}
_PARTS = tuple(field.name for field in fields(DrafterParts) if field.name != "layers")
_NOT_PLAIN = {f"drafter.{part}" for part in FITTED}
_DRAFTER = {"drafter.layers", *(f"drafter.{part}" for part in _PARTS)}
_EXIT_PARTS = tuple(field.name for field in fields(ExitParts) if field.name != "layers")
_EXITS = {"exits.layers", *(f"exits.{part}" for part in _EXIT_PARTS)}
_CALIBRATION = {"calibration.thresholds", "calibration.losses"}
_WEIGHTS = "calibration.weights"  # metadata
_PART = re.compile(r"adapters\.(0|[1-9]\d*)\.(norm|down|up)")
_SHAPE = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_layers",
    "num_heads",
    "num_kv_heads",
    "head_dim",
)


@dataclass(frozen=True)
class Adapter:
    """A residual bottleneck on a hidden state h: ``h + up @ silu(down @ rms_norm(h, norm))``.

    ``norm`` (hidden_size,), ``down`` (width, hidden_size), ``up`` (hidden_size, width), fp32. The products
    are bf16 ones: weights and inputs rounded to bf16, sums in fp32. (Houlsby et al., 2019)
    """

    norm: Floats
    down: Floats
    up: Floats


def misfit(adapter: Adapter, config: ModelConfig) -> str | None:
    """What is wrong with an adapter's shapes for a model, None if they fit."""
    hidden, width = config.hidden_size, max((1, *adapter.down.shape[:1]))
    for part, shape in {"norm": (hidden,), "down": (width, hidden), "up": (hidden, width)}.items():
        found = getattr(adapter, part).shape
        if found != shape:
            return f"{part} has shape {found}, and must be {shape} for hidden_size {hidden} and width {width}"
    return None


@dataclass(frozen=True)
class Speculator:
    """Fitted parts of one model.

    ``vocabulary``: ids that drafts may have (tokens,), None for all. ``adapters``: by the exit layer, counted
    from 1, whose hidden state they take. ``drafter``: a block that drafts without the model's layers.
    ``exits``: predictors of early exits, which need the block; ``calibration``: what they were measured to
    cost in approximate decoding.
    """

    vocabulary: Ints | None = None
    adapters: Mapping[int, Adapter] = field(default_factory=dict)
    drafter: DrafterParts | None = None
    exits: ExitParts | None = None
    calibration: Calibration | None = None


def fingerprint(config: ModelConfig, norms: Iterable[tuple[str, int, Floats]]) -> str:
    """What tells one model from another, 64 hexadecimal digits: SHA-256 of its shape and its norms.

    ``norms``: role, layer and fp32 values of every norm of :func:`specee.models.table.shapes`, in any order;
    :meth:`.Checkpoint.norms` reads them. They are small, every file format keeps them unquantised, and
    full training moves them (low-rank adapters that were merged may not: such models share a fingerprint,
    which can cost acceptance, never exactness); rounded to bf16, the same model has one in every format.
    Raises CheckpointError if one is missing, of the wrong shape, or none of the model's.
    """
    wanted = {key: shape for key, shape in shapes(config).items() if key[0].endswith("norm")}
    vectors = {(role, layer): np.ascontiguousarray(values, np.float32) for role, layer, values in norms}
    if wrong := sorted(wanted.keys() ^ vectors.keys()):
        raise CheckpointError(
            f"the norms given for a fingerprint and those of the model differ in {wrong[0]} ({len(wrong)} in "
            "all); give each norm of the model once"
        )
    lines = [f"{_FORMAT} model", *(f"{name} {getattr(config, name)}" for name in _SHAPE)]
    digest = hashlib.sha256("\n".join(lines).encode())
    for (role, layer), shape in sorted(wanted.items()):
        values = vectors[role, layer]
        if values.shape != shape:
            raise CheckpointError(
                f"norm {role!r} of layer {layer} has shape {values.shape}; the model's is {shape}"
            )
        digest.update(f"\n{role} {layer}\n".encode())
        digest.update(_bf16_bits(values).tobytes())
    return digest.hexdigest()


def _bf16_bits(values: Floats) -> npt.NDArray[np.uint16]:
    """Bit patterns after rounding to bfloat16, to nearest, ties to even; little-endian."""
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")


def read_speculator(path: Path, config: ModelConfig, fingerprint: str) -> Speculator:
    """Read and check the speculator file of the model with that configuration and :func:`fingerprint`.

    Arrays come as int64 and float32. Raises CheckpointError for a file that is missing, damaged or truncated,
    of another kind or version, or fitted to another model; and for parts that do not fit: layers outside
    1..num_layers - 1, wrong shapes or types, values that are not finite, ids outside the vocabulary or
    repeated.
    """
    tensors, metadata = _checked_tensors(path, fingerprint)
    return _Contents(path, tensors, metadata, config).speculator()


def read_notes(path: Path) -> Mapping[str, str]:
    """Metadata of a file that :func:`read_speculator` reads."""
    import safetensors

    with safetensors.safe_open(path, framework="numpy") as file:
        return file.metadata() or {}


def _checked_tensors(path: Path, fingerprint: str) -> tuple[dict[str, Any], Mapping[str, str]]:
    """dtype, shape and data of each tensor, by name, of a file whose metadata are right; and those."""
    import safetensors

    try:
        # Opening validates the whole header against the size of the file; nothing else is read yet, since
        # this may be any file.
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            _check_metadata(path, metadata, fingerprint)
        return dict(safetensors.deserialize(path.read_bytes())), metadata  # type: ignore[no-untyped-call]
    except (safetensors.SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path}: no complete speculator file ({error}). Check the path, or make the file again."
        ) from error


def _check_metadata(path: Path, metadata: Mapping[str, str], fingerprint: str) -> None:
    if metadata.get("format") != _FORMAT:
        raise CheckpointError(
            f"{path}: metadata 'format' is {metadata.get('format')!r}; a speculator file has {_FORMAT!r}. "
            "Give a file that was made as a speculator."
        )
    if metadata.get("version") != _VERSION:
        raise CheckpointError(
            f"{path}: a speculator file of version {metadata.get('version')!r}; this release reads version "
            f"{_VERSION!r}. Make the file again, or use a newer specee."
        )
    if metadata.get("fingerprint") != fingerprint:
        raise CheckpointError(
            f"{path}: fitted to the model with fingerprint {metadata.get('fingerprint')}, and this model has "
            f"{fingerprint}. Use the model it was fitted to, or fit one for this model."
        )


class _Contents:
    """The tensors of a file on their way into a Speculator."""

    def __init__(
        self, path: Path, tensors: dict[str, Any], metadata: Mapping[str, str], config: ModelConfig
    ) -> None:
        self._path, self._tensors, self._metadata, self._config = path, tensors, metadata, config

    def speculator(self) -> Speculator:
        """Every tensor, checked."""
        known = {"vocabulary", *_DRAFTER, *_EXITS, *_CALIBRATION}
        names = sorted(name for name in self._tensors if name not in known)
        parts = {name: _PART.fullmatch(name) for name in names}
        if unknown := [name for name in names if parts[name] is None]:
            raise self._error(f"tensor {unknown[0]!r} has no place in a speculator file")
        layers = sorted({int(part[1]) for part in parts.values() if part is not None})
        last = self._config.num_layers - 1
        if wrong := [layer for layer in layers if not 1 <= layer <= last]:
            raise self._error(f"an adapter for layer {wrong[0]}: exit layers of this model are 1 to {last}")
        vocabulary = self._vocabulary() if "vocabulary" in self._tensors else None
        adapters = {layer: self._adapter(layer) for layer in layers}
        there = self._tensors.keys()
        return Speculator(
            vocabulary,
            adapters,
            self._drafter() if there & _DRAFTER else None,
            self._exits() if there & _EXITS else None,
            self._calibration() if there & _CALIBRATION else None,
        )

    def _drafter(self) -> DrafterParts:
        layers = self._layers("drafter.layers")
        plain = not self._tensors.keys() & _NOT_PLAIN
        without = FITTED if plain else ("fc_bias",)
        empty = dict.fromkeys(without, np.zeros(0, np.float32))
        there = {part: self._floats(f"drafter.{part}") for part in _PARTS if part not in without}
        drafter = DrafterParts(layers, **there, **empty)
        if (wrong := drafter.misfit(self._config)) is not None:
            raise self._error(f"drafter.{wrong}")
        return drafter

    def _exits(self) -> ExitParts:
        if not self._tensors.keys() & _DRAFTER:
            raise self._error("exit predictors without a drafter block, whose candidates they judge")
        layers = self._layers("exits.layers")
        exits = ExitParts(layers, **{part: self._floats(f"exits.{part}") for part in _EXIT_PARTS})
        if (wrong := exits.misfit(self._config)) is not None:
            raise self._error(f"exits.{wrong}")
        return exits

    def _calibration(self) -> Calibration:
        thresholds, losses = (self._floats(f"calibration.{part}") for part in ("thresholds", "losses"))
        if _WEIGHTS not in self._metadata or not self._tensors.keys() & _EXITS:
            raise self._error("a calibration without predictors, or without the weights it was made with")
        calibration = Calibration(thresholds, losses, self._metadata[_WEIGHTS])
        if (wrong := calibration.misfit()) is not None:
            raise self._error(f"calibration: {wrong}")
        return calibration

    def _layers(self, name: str) -> tuple[int, ...]:
        _, layers, shape = self._raw(name, _INTEGERS)
        if len(shape) != 1 or layers.size == 0:
            raise self._error(f"tensor {name!r} has shape {shape}; it must be layers in a row")
        return tuple(layers.tolist())

    def _adapter(self, layer: int) -> Adapter:
        adapter = Adapter(*(self._floats(f"adapters.{layer}.{part}") for part in ("norm", "down", "up")))
        if (wrong := misfit(adapter, self._config)) is not None:
            raise self._error(f"adapters.{layer}.{wrong}")
        return adapter

    def _floats(self, name: str) -> Floats:
        dtype, raw, shape = self._raw(name, FLOATS)
        values = widen(raw, dtype, 1).reshape(shape)
        if not np.isfinite(values).all():
            at = [int(i) for i in np.argwhere(~np.isfinite(values))[0]]
            raise self._error(f"tensor {name!r} holds a NaN or infinite value at {at}; all must be finite")
        return values

    def _vocabulary(self) -> Ints:
        _, raw, shape = self._raw("vocabulary", _INTEGERS)
        ids = raw.astype(np.int64)
        if len(shape) != 1 or ids.size == 0:
            raise self._error(f"tensor 'vocabulary' has shape {shape}; it must be one or more ids in a row")
        outside = ids[(ids < 0) | (ids >= self._config.vocab_size)]
        if outside.size:
            raise self._error(
                f"tensor 'vocabulary' has id {outside[0]}; ids are 0 to {self._config.vocab_size - 1}"
            )
        sorted_ids = np.sort(ids)
        if (twice := sorted_ids[1:][sorted_ids[1:] == sorted_ids[:-1]]).size:
            raise self._error(
                f"tensor 'vocabulary' has id {twice[0]} more than once; each id may be kept once"
            )
        return ids

    def _raw(
        self, name: str, dtypes: Mapping[str, npt.DTypeLike]
    ) -> tuple[str, npt.NDArray[Any], tuple[int, ...]]:
        """Type, elements in one dimension, and shape of a tensor."""
        if name not in self._tensors:
            raise self._error(
                f"tensor {name!r} is missing: an adapter has norm, down and up, other things all their parts"
            )
        tensor = self._tensors[name]
        if tensor["dtype"] not in dtypes:
            raise self._error(f"tensor {name!r} is {tensor['dtype']}; allowed are {', '.join(dtypes)}")
        raw = np.frombuffer(tensor["data"], dtypes[tensor["dtype"]])
        return tensor["dtype"], raw, tuple(tensor["shape"])

    def _error(self, what: str) -> CheckpointError:
        return CheckpointError(f"{self._path}: {what}. The file is damaged, or made wrongly; make it again.")


def write_speculator(
    path: Path, speculator: Speculator, fingerprint: str, notes: Mapping[str, str] | None = None
) -> None:
    """Write a file that :func:`read_speculator` reads.

    Arrays are float32 and int64, those of a drafter and of predictors float16.

    ``notes``: more metadata, of how it was made; nothing depends on them. See :func:`.write_whole`.
    Raises OSError.
    """
    from safetensors.numpy import save

    tensors: dict[str, npt.NDArray[Any]] = {}
    if speculator.vocabulary is not None:
        tensors["vocabulary"] = np.ascontiguousarray(speculator.vocabulary, np.int64)
    for layer, adapter in speculator.adapters.items():
        for part in ("norm", "down", "up"):
            tensors[f"adapters.{layer}.{part}"] = np.ascontiguousarray(getattr(adapter, part), np.float32)
    if speculator.drafter is not None:
        tensors["drafter.layers"] = np.array(speculator.drafter.layers, np.int64)
        for name, array in speculator.drafter.arrays():
            tensors[f"drafter.{name}"] = np.ascontiguousarray(array, np.float16)
    if speculator.exits is not None:
        tensors["exits.layers"] = np.array(speculator.exits.layers, np.int64)
        for name, array in speculator.exits.arrays():
            tensors[f"exits.{name}"] = np.ascontiguousarray(array, np.float16)
    calibration = speculator.calibration
    if calibration is not None:
        tensors["calibration.thresholds"] = np.ascontiguousarray(calibration.thresholds, np.float32)
        tensors["calibration.losses"] = np.ascontiguousarray(calibration.losses, np.float32)
        notes = {**(notes or {}), _WEIGHTS: calibration.weights}
    metadata = {**(notes or {}), "format": _FORMAT, "version": _VERSION, "fingerprint": fingerprint}
    write_whole(path, save(tensors, metadata))
