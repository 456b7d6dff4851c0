"""Files that commands write: whole or not at all, and known to be possible before the work is done."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from specee.errors import ConfigurationError


def check_writable(path: Path, option: str) -> None:
    """Raise ConfigurationError, which names ``option``, if ``path`` cannot be written. Changes nothing."""
    target = _target(path)
    if target.exists() and not target.is_file():
        raise ConfigurationError(f"{option} {path}: there is something that is no file; give another name")
    try:
        with tempfile.TemporaryDirectory(prefix=".specee-", dir=target.parent):
            pass
    except OSError as error:
        raise _cannot(path, option, error) from error


def write_whole(path: Path, text: str, option: str) -> None:
    """Write UTF-8, and replace what was there in one step.

    Raises ConfigurationError, which names ``option``.
    """
    target = _target(path)
    try:
        with tempfile.TemporaryDirectory(prefix=".specee-", dir=target.parent) as folder:
            scratch = Path(folder) / target.name
            scratch.write_bytes(text.encode("utf-8", "replace"))
            os.replace(scratch, target)
    except OSError as error:
        raise _cannot(path, option, error) from error


def _target(path: Path) -> Path:
    """Where a link points, so that the link stays."""
    return Path(os.path.realpath(path))


def _cannot(path: Path, option: str, error: OSError) -> ConfigurationError:
    return ConfigurationError(
        f"{option} {path}: cannot be written ({error.strerror or error}); give a name in a folder that "
        "exists and that you may write to"
    )
