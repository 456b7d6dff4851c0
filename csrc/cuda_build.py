"""How the CUDA kernels are compiled: read by setup.py, scripts/cuda_resources.py and the tests.

``SPECEE_BUILD_CUDA`` unset: build ``specee._cuda`` if nvcc is found and works; ``0``: do not; ``1``: or fail.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# Machine code for these, and PTX of the newest for what comes after it. An sm_80 binary also runs on sm_86.
ARCHITECTURES = ("80", "89", "90")
PTX = ARCHITECTURES[-1]

# Nothing is contracted: a fused multiply-add is written out (docs/numerics.md).
NVCC_FLAGS = ["-std=c++17", "-O3", "--fmad=false", "-Xcompiler", "-fPIC,-fvisibility=hidden"]
WARNINGS_ARE_ERRORS = ["-Werror", "all-warnings", "-Xptxas", "-Werror"]
INCLUDE = ["-Icsrc", "-Icsrc/include"]
KERNELS = "csrc/cuda/kernels.cu"
BINDINGS = "csrc/bindings/cuda/module.cpp"


def find_nvcc() -> str | None:
    """The nvcc on the PATH, else in CUDA_HOME."""
    home = os.environ.get("CUDA_HOME")
    return shutil.which("nvcc") or (shutil.which("nvcc", path=str(Path(home) / "bin")) if home else None)


def mode() -> str:
    """SPECEE_BUILD_CUDA: ``""``, ``0`` or ``1``. Raises SystemExit for anything else."""
    value = os.environ.get("SPECEE_BUILD_CUDA", "").strip()
    if value not in ("", "0", "1"):
        raise SystemExit(
            f"SPECEE_BUILD_CUDA={value!r}: allowed are 0 (off), 1 (fail without nvcc) or nothing"
        )
    return value


def wanted() -> bool:
    """Whether to build ``specee._cuda``, said in one line. Raises SystemExit where it must be and cannot."""
    if mode() == "0":
        print("specee._cuda: not built (SPECEE_BUILD_CUDA=0)")
        return False
    nvcc = find_nvcc()
    if nvcc is None and mode() == "1":
        raise SystemExit(
            "SPECEE_BUILD_CUDA=1, and nvcc is neither on the PATH nor in CUDA_HOME: install the CUDA "
            "toolkit, or unset SPECEE_BUILD_CUDA to build without"
        )
    print(
        "specee._cuda: " + (f"built with {nvcc}" if nvcc else "not built, no nvcc; CuPy compiles its kernels")
    )
    return nvcc is not None


def targets(architectures: tuple[str, ...] = ARCHITECTURES, ptx: str | None = PTX) -> list[str]:
    """What tells nvcc to make machine code and PTX."""
    codes = [f"arch=compute_{a},code=sm_{a}" for a in architectures]
    codes += [f"arch=compute_{ptx},code=compute_{ptx}"] if ptx else []
    return [part for code in codes for part in ("-gencode", code)]


def compile_kernels(nvcc: str, output: Path, jobs: int, extra: list[str]) -> None:
    """Compile the kernels into an object. Raises CalledProcessError with nvcc's words in ``stdout``."""
    output.parent.mkdir(parents=True, exist_ok=True)
    what = ["-c", KERNELS, "-o", output.resolve()]
    run([nvcc, *NVCC_FLAGS, *targets(), *INCLUDE, *extra, f"--threads={jobs}", *what])


def link(nvcc: str, objects: list[str], output: Path) -> None:
    """Link with the static CUDA runtime, which looks for a driver only when it is used."""
    output.parent.mkdir(parents=True, exist_ok=True)
    paths = [Path(name).resolve() for name in objects]
    run(
        [nvcc, "-shared", "--cudart=static", "-Xlinker", "--exclude-libs=ALL", *paths, "-o", output.resolve()]
    )


def run(command: list[str | Path]) -> str:
    """Run a compiler in the project's folder; what it says. Raises CalledProcessError with that."""
    done = subprocess.run(
        command, cwd=ROOT, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    return done.stdout
