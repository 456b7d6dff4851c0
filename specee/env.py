"""The SPECEE_* environment variables, read when they are needed and checked; and the thread count.

=====================  ==========================================================================
SPECEE_NUM_THREADS     threads of the native engine (default: physical cores the process may use)
SPECEE_BACKEND         ``reference``, ``cpu`` or ``cuda``: the backend of every load that names none;
                       it has to run on the load's device, so ``cuda`` needs ``device="cuda"`` too
SPECEE_FORCE_ISA       instruction set of the native engine; unsupported values raise
SPECEE_CUDA_GRAPHS     ``0``: kernels of the CUDA backend are launched one by one, never as a graph
SPECEE_CACHE           folder for the default model (read by :mod:`specee.models.default_model`)
=====================  ==========================================================================

An empty value counts as unset. A wrong value raises ConfigurationError; none is ever ignored.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

from specee.errors import ConfigurationError

MAX_THREADS = 1024
BACKENDS = ("reference", "cpu", "cuda")

_SYSFS_CPU = Path("/sys/devices/system/cpu")
_CGROUP = Path("/sys/fs/cgroup")


def num_threads() -> int | None:
    """SPECEE_NUM_THREADS, or None when unset. Raises ConfigurationError."""
    text = _read("SPECEE_NUM_THREADS")
    if text is None:
        return None
    if not text.isdecimal():
        raise ConfigurationError(
            f"SPECEE_NUM_THREADS={text!r} is not a whole number: allowed are 1..{MAX_THREADS}"
        )
    return checked_threads(int(text), "SPECEE_NUM_THREADS")


def checked_threads(threads: int, source: str = "threads") -> int:
    """``threads`` if it is allowed. Raises ConfigurationError."""
    if isinstance(threads, bool) or not isinstance(threads, int) or not 1 <= threads <= MAX_THREADS:
        raise ConfigurationError(f"{source}={threads!r}: allowed are whole numbers 1..{MAX_THREADS}")
    return threads


def resolve_threads(threads: int | None = None) -> int:
    """The argument, else SPECEE_NUM_THREADS, else the physical cores at hand."""
    if threads is not None:
        return checked_threads(threads)
    return num_threads() or physical_cores()


def backend() -> str | None:
    """SPECEE_BACKEND, or None when unset. Raises ConfigurationError."""
    name = _read("SPECEE_BACKEND")
    if name is not None and name not in BACKENDS:
        raise ConfigurationError(f"SPECEE_BACKEND={name!r}: allowed are {', '.join(BACKENDS)}")
    return name


def force_isa() -> str:
    """SPECEE_FORCE_ISA, or "" when unset. The native module checks the name, as it knows the machine."""
    return _read("SPECEE_FORCE_ISA") or ""


def cuda_graphs() -> bool:
    """Whether launches may be graphs: SPECEE_CUDA_GRAPHS, or True when unset. Raises ConfigurationError."""
    text = _read("SPECEE_CUDA_GRAPHS")
    if text not in (None, "0", "1"):
        raise ConfigurationError(f"SPECEE_CUDA_GRAPHS={text!r}: allowed are 0 and 1")
    return text != "0"


def physical_cores() -> int:
    """Physical cores of this process: its affinity, less hyper-threads, capped by its cgroup; at least 1."""
    logical = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    cores = {_siblings(cpu) for cpu in logical}
    quota = _cgroup_quota()
    return max(1, len(cores) if quota is None else min(len(cores), quota))


def _siblings(cpu: int) -> str:
    """What names the physical core of a logical CPU: the list of its hyper-threads, or the CPU itself."""
    try:
        return (_SYSFS_CPU / f"cpu{cpu}" / "topology" / "thread_siblings_list").read_text().strip()
    except OSError:
        return str(cpu)


def _cgroup_quota() -> int | None:
    """CPUs that cgroup v2 grants (rounded up), the least over the process's groups; None if unlimited."""
    grants = [grant for folder in cgroup_folders() if (grant := _quota_of(folder)) is not None]
    return min(grants, default=None)


def cgroup_folders() -> list[Path]:
    """Folders of the process's cgroup v2 and of the groups around it, innermost first; [] without one."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    own = next((line[3:].strip("/") for line in lines if line.startswith("0::")), "")
    folder = _CGROUP / own if own else _CGROUP
    return [folder, *(parent for parent in folder.parents if parent.is_relative_to(_CGROUP))]


def _quota_of(folder: Path) -> int | None:
    """The grant of a ``cpu.max`` file, "max 100000" or "<quota> <period>" in microseconds."""
    try:
        quota, period = (folder / "cpu.max").read_text().split()
        return None if quota == "max" else max(1, math.ceil(int(quota) / int(period)))
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _read(name: str) -> str | None:
    return os.environ.get(name, "").strip() or None
