"""Traces as files: one .npz, read without running anything in it, written whole or not at all."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from specee.errors import CheckpointError, ConfigurationError
from specee.policies import Latency
from specee.replay.trace import Text, Trace
from specee.whole_file import write_whole

_FORMAT, _VERSION = "specee-trace", 2
_KINDS = {
    "format": "U", "version": "i", "name": "U", "layers": "i", "rows": "i", "layer": "f", "head": "f",
    "around": "f", "prompts": "i", "lengths": "i", "positions": "i", "tokens": "i", "drafts": "i",
    "confidences": "f",
}  # fmt: skip
# What numpy and zipfile raise for files that are damaged, or something else.
_DAMAGED = (
    *(OSError, ValueError, TypeError, KeyError, EOFError, RuntimeError, MemoryError, OverflowError),
    *(SyntaxError, IndexError, zipfile.BadZipFile, zlib.error, struct.error),
)


def write_trace(path: Path, trace: Trace) -> None:
    """Write a file that :func:`read_trace` reads.

    See :func:`.write_whole`. Raises OSError.
    """
    texts, latency = trace.texts, trace.latency
    memory = io.BytesIO()
    np.savez_compressed(
        memory,
        format=np.array(_FORMAT),
        version=np.array(_VERSION),
        name=np.array(trace.name),
        layers=np.array(trace.layers),
        rows=np.array(latency.rows, np.int64),
        layer=np.array(latency.layer, np.float64),
        head=np.array(latency.head, np.float64),
        around=np.array([latency.call, latency.step], np.float64),
        prompts=np.array([text.prompt for text in texts], np.int64),
        lengths=np.array([len(text) for text in texts], np.int64),
        positions=np.array([len(text.drafts) for text in texts], np.int64),
        tokens=np.concatenate([text.tokens for text in texts]),
        drafts=np.concatenate([text.drafts for text in texts]),
        confidences=np.concatenate([text.confidences for text in texts]),
    )
    write_whole(path, memory.getvalue())


def read_trace(path: Path) -> Trace:
    """Read a trace. Raises CheckpointError for a file that is missing, damaged, or none."""
    try:
        file = np.load(path, allow_pickle=False)
        if not isinstance(file, np.lib.npyio.NpzFile):
            raise ValueError("one array")
        with file:
            arrays = {name: file[name] for name in file.files}
    except _DAMAGED as error:
        raise CheckpointError(
            f"{path}: no whole trace ({type(error).__name__}: {error}). Check the path, or record it again "
            "with `specee record`."
        ) from error
    if str(arrays.get("format")) != _FORMAT:
        raise CheckpointError(f"{path}: a file of arrays, but no trace: give one that `specee record` made.")
    if str(arrays.get("version")) != str(_VERSION):
        raise CheckpointError(
            f"{path}: a trace of version {arrays.get('version')}; this release reads version {_VERSION}. "
            "Record it again, or use a newer specee."
        )
    if wrong := [
        name for name, kind in _KINDS.items() if name not in arrays or arrays[name].dtype.kind != kind
    ]:
        raise CheckpointError(f"{path}: array {wrong[0]!r} is missing or of another type. Record it again.")
    try:
        return _assembled(arrays)
    except (ConfigurationError, ValueError, TypeError, OverflowError, IndexError) as error:
        raise CheckpointError(f"{path}: {error}. The file is damaged; record it again.") from error


def _assembled(arrays: Mapping[str, npt.NDArray[Any]]) -> Trace:
    lengths, positions = arrays["lengths"], arrays["positions"]
    if min(lengths.min(initial=1), positions.min(initial=1)) < 1:
        raise ValueError("a text without tokens or positions")
    for name, counts in (("tokens", lengths), ("drafts", positions), ("confidences", positions)):
        if len(arrays[name]) != counts.sum():
            raise ValueError(f"array {name!r} has {len(arrays[name])} entries of {counts.sum()}")
    tokens = np.split(arrays["tokens"].astype(np.int32), np.cumsum(lengths)[:-1])
    drafts = np.split(arrays["drafts"].astype(np.int32), np.cumsum(positions)[:-1])
    confidences = np.split(arrays["confidences"].astype(np.float32), np.cumsum(positions)[:-1])
    parts = zip(tokens, arrays["prompts"].tolist(), drafts, confidences, strict=True)
    texts = tuple([Text(*part) for part in parts]) if len(lengths) else ()
    return Trace(str(arrays["name"]), int(arrays["layers"]), _latency(arrays), texts)


def _latency(arrays: Mapping[str, npt.NDArray[Any]]) -> Latency:
    rows, layer, head = (tuple(arrays[name].tolist()) for name in ("rows", "layer", "head"))
    around = arrays["around"].tolist()
    ascending = rows[:1] == (1,) and list(rows) == sorted(set(rows))
    if not ascending or not len(rows) == len(layer) == len(head) or len(around) != 2:
        raise ValueError(f"a latency table of rows {rows} with {len(layer)} and {len(head)} entries")
    if not all(np.isfinite(seconds) and seconds >= 0 for seconds in (*layer, *head, *around)):
        raise ValueError("a latency table with seconds that are none")
    if layer[0] <= 0:
        raise ValueError("a latency table in which a layer takes no time")
    return Latency(rows, layer, head, *around)
