"""Files that are written whole or not at all."""

from __future__ import annotations

import errno
import os
import secrets
import tempfile
from pathlib import Path


def check_possible(path: Path) -> None:
    """Raise OSError if a file cannot be written there. Changes nothing."""
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        raise OSError(errno.EEXIST, "there is something that is no file", str(path))
    with tempfile.TemporaryDirectory(prefix=".specee-", dir=target.parent):
        pass


def write_whole(path: Path, content: bytes) -> None:
    """Write beside ``path``, and rename when it is complete: on an error, what was there stays.

    Where ``path`` is a link, what it points to is written. Raises OSError.
    """
    target = Path(os.path.realpath(path))
    beside = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        with beside.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)
