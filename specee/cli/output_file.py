"""Files that commands write: whole or not at all, and known to be possible before the work is done."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from specee import whole_file
from specee.errors import ConfigurationError


def check_writable(path: Path, option: str) -> None:
    """Raise ConfigurationError, which names ``option``, if ``path`` cannot be written. Changes nothing."""
    try:
        whole_file.check_possible(path)
    except OSError as error:
        raise _cannot(path, option, error) from error


def write_whole(path: Path, text: str, option: str) -> None:
    """Write UTF-8, and replace what was there in one step.

    Raises ConfigurationError, which names ``option``.
    """
    with written(path, option):
        whole_file.write_whole(path, text.encode("utf-8", "replace"))


@contextlib.contextmanager
def written(path: Path, option: str) -> Iterator[None]:
    """What is done inside writes ``path``: an OSError becomes a ConfigurationError that names ``option``."""
    try:
        yield
    except OSError as error:
        raise _cannot(path, option, error) from error


def _cannot(path: Path, option: str, error: OSError) -> ConfigurationError:
    return ConfigurationError(
        f"{option} {path}: cannot be written ({error.strerror or error}); give a name in a folder that "
        "exists and that you may write to"
    )
