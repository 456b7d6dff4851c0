"""Whether memory can be had, asked before it is needed: an overcommitting system says yes and kills later."""

from __future__ import annotations

from pathlib import Path

from specee.errors import OutOfMemoryError

_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


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
    """What cgroup v2 leaves, as a container sees it: its limit less what it holds that no file backs."""
    try:
        limit = (_CGROUP / "memory.max").read_text().strip()
        if limit == "max":
            return None
        used = int((_CGROUP / "memory.current").read_text())
        stat = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
        return max(0, int(limit) - used + int(stat.get("inactive_file", 0)))
    except (OSError, ValueError):
        return None
