"""What a stage came to, in a file of arrays: whole, or not there."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterable
from collections.abc import Sequence as Seq
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from specee.errors import CheckpointError
from specee.whole_file import write_whole


def mark(said: Seq[Any], arrays: Iterable[npt.NDArray[Any]]) -> str:
    """What tells the results of one run from another's, in a few digits."""
    found = zlib.crc32(repr(tuple(said)).encode())
    for array in arrays:
        found = zlib.crc32(np.ascontiguousarray(array).tobytes(), found)
    return f"{found:08x}"


def write(path: Path, **arrays: Any) -> None:
    """Keep them for a run that goes on. Raises OSError."""
    content = io.BytesIO()
    np.savez(content, **arrays)
    write_whole(path, content.getvalue())


def read(path: Path, *needed: str) -> dict[str, Any]:
    """What :func:`write` kept. Raises CheckpointError for a damaged file, or one without ``needed``."""
    try:
        with np.load(path, allow_pickle=False) as file:
            found = dict(file)
            _ = [found[name] for name in needed]
            return found
    except (OSError, ValueError, KeyError, zlib.error, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{path}: no complete file of a fit ({error}). Delete it.") from error
