"""Whether memory can be had, asked before it is needed: an overcommitting system says yes and kills later."""

from __future__ import annotations

from pathlib import Path

from specee import env
from specee.errors import OutOfMemoryError

_MEMINFO = Path("/proc/meminfo")


def check_room(needed: int, what: str, advice: str) -> None:
    """Raise OutOfMemoryError if ``needed`` bytes are more than this process can get; unknown is fine."""
    room = available()
    if room is not None and needed > room:
        raise OutOfMemoryError(
            f"{what}: {needed >> 20} MiB are needed and {room >> 20} MiB available; {advice}, or free memory"
        )


def available() -> int | None:
    """Bytes obtainable without swapping, page cache included, within the cgroup's limit; None if unknown."""
    known = [room for room in (_system(), _cgroup()) if room is not None]
    return min(known, default=None)


def _system() -> int | None:
    try:
        for line in _MEMINFO.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None


def _cgroup() -> int | None:
    """What cgroup v2 leaves: the least over the process's groups of limit less what no file backs."""
    rooms = [room for folder in env.cgroup_folders() if (room := _room_of(folder)) is not None]
    return min(rooms, default=None)


def _room_of(folder: Path) -> int | None:
    try:
        limit = (folder / "memory.max").read_text().strip()
        if limit == "max":
            return None
        used = int((folder / "memory.current").read_text())
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        files = sum(int(stat.get(kind, 0)) for kind in ("inactive_file", "active_file"))
        return max(0, int(limit) - used + files)
    except (OSError, ValueError):
        return None
