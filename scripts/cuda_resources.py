"""What the CUDA kernels need of a device: registers, shared memory, spills, as nvcc reports them.

    python scripts/cuda_resources.py [--save]

Compiles every kernel for every target with warnings as errors; ``--save`` writes
bench/results/cuda_resources.json. Needs nvcc and no device.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "csrc"))
import cuda_build  # noqa: E402  not on the path: it is not part of the package

RESULT = ROOT / "bench" / "results" / "cuda_resources.json"
_ENTRY = re.compile(r"Compiling entry function '(\w+)' for '(sm_\d+)'")
_SPILLS = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_USED = re.compile(r"Used (\d+) registers(?:.*?(\d+) bytes smem)?")


def parse(log: str) -> dict[str, dict[str, dict[str, int]]]:
    """What ptxas said of each kernel, by target and name."""
    found: dict[str, dict[str, dict[str, int]]] = {}
    kernel: dict[str, int] = {}
    for line in log.splitlines():
        if entry := _ENTRY.search(line):
            kernel = found.setdefault(entry[2], {}).setdefault(entry[1], {})
        elif spills := _SPILLS.search(line):
            kernel["stack_bytes"], stores, loads = map(int, spills.groups())
            kernel["spill_bytes"] = stores + loads
        elif used := _USED.search(line):
            kernel["registers"], kernel["shared_bytes"] = int(used[1]), int(used[2] or 0)
    return found


def compiled(nvcc: str) -> str:
    """Nvcc's report on every kernel. Raises CalledProcessError with nvcc's words for a warning."""
    flags = [*cuda_build.NVCC_FLAGS, *cuda_build.WARNINGS_ARE_ERRORS, *cuda_build.INCLUDE, "--resource-usage"]
    with tempfile.TemporaryDirectory() as folder:
        output = ["-c", cuda_build.KERNELS, "-o", str(Path(folder, "kernels.o"))]
        jobs = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
        return cuda_build.run([nvcc, *flags, *cuda_build.targets(), f"--threads={jobs}", *output])


def version(nvcc: str) -> str:
    """Release of nvcc, such as ``13.0``."""
    found = re.search(r"release ([\d.]+)", cuda_build.run([nvcc, "--version"]))
    return found[1] if found else "unknown"


def report(nvcc: str) -> dict[str, Any]:
    """The whole table."""
    by_target = parse(compiled(nvcc))
    kernels = {target: dict(sorted(by_target[target].items())) for target in sorted(by_target)}
    return {"what": "resources of the CUDA kernels, as ptxas reports them", "nvcc": version(nvcc), **kernels}


def main() -> int:
    """Print, and save if asked to."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--save", action="store_true", help=f"write {RESULT.relative_to(ROOT)}")
    options = parser.parse_args()
    nvcc = cuda_build.find_nvcc()
    if nvcc is None:
        print("nvcc is neither on the PATH nor in CUDA_HOME", file=sys.stderr)
        return 1
    text = json.dumps(report(nvcc), indent=1) + "\n"
    print(text, end="")
    if options.save:
        RESULT.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
