"""A file that a long comparison can be taken up from.

Tallies are found again by their settings, whatever the commit: what was compared stays compared. Tokens of
plain decoding are only used again by the very same code, since a change of the arithmetic may change them.
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import specee
from specee.errors import ConfigurationError
from specee.whole_file import write_whole

from .tally import Tally

_SAVE_EVERY_S = 10.0

Settings = dict[str, Any]
Tokens = list[list[int]]
T = TypeVar("T")


def build() -> str:
    """A digest of the installed package, native code included."""
    folder = Path(specee.__file__).parent
    digest = hashlib.sha256()
    for path in sorted([*folder.rglob("*.py"), *folder.glob("_cpu*.so")]):
        digest.update(path.relative_to(folder).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


class State:
    """What is done so far; ``path`` None keeps it in memory. Raises ConfigurationError for another file."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._tallies: list[tuple[Settings, Tally]] = []
        self._plain: list[tuple[Settings, Tokens]] = []
        self._build = build()
        self._saved = time.monotonic()
        if path is not None and path.exists():
            self._read(path)

    def tally(self, settings: Settings) -> Tally:
        """The tally with these settings, a new one if there is none."""
        return _entry(self._tallies, settings, Tally())

    def plain(self, settings: Settings) -> Tokens:
        """Tokens of plain decoding with these settings, of as many prompts as were done."""
        return _entry(self._plain, settings, [])

    def save(self, *, now: bool = True) -> None:
        """Write the file; unless ``now``, only if it is a while since the last time."""
        if self._path is None or (not now and time.monotonic() - self._saved < _SAVE_EVERY_S):
            return
        content = {
            "build": self._build,
            "tallies": [{"settings": s, "tally": asdict(tally)} for s, tally in self._tallies],
            "plain": [{"settings": s, "tokens": tokens} for s, tokens in self._plain],
        }
        self._path.parent.mkdir(parents=True, exist_ok=True)
        # In one go: a run that is killed while it writes leaves the state before.
        write_whole(self._path, (json.dumps(content) + "\n").encode())
        self._saved = time.monotonic()

    def _read(self, path: Path) -> None:
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            self._tallies = [(one["settings"], Tally(**one["tally"])) for one in content["tallies"]]
            plain = [(one["settings"], one["tokens"]) for one in content["plain"]]
            self._plain = plain if content["build"] == self._build else []
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigurationError(
                f"state {path}: is not what an earlier run wrote ({error}); delete it, or name another"
            ) from error


def _entry(entries: list[tuple[Settings, T]], settings: Settings, new: T) -> T:
    for known, value in entries:
        if known == settings:
            return value
    entries.append((settings, new))
    return new
