"""Loads damaged GGUF files with the extension under address and undefined-behaviour sanitizers.

    python scripts/fuzz_gguf.py [--seconds S] [--seed N] [--case K] [--work FOLDER] [--plant BUG]

The only good outcomes are a model that decodes and a typed error. Anything else, be it another exception, a
report of a sanitizer, a crash, or too much time or memory, ends the run; seed, case and file are printed and
``--seed N --case K`` repeats it. The cases are made in tests/fuzz. Needs GCC on Linux, and the packages that
specee needs.
"""

from __future__ import annotations

import argparse
import os
import random
import shlex
import shutil
import subprocess
import sys
import sysconfig
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import native
import pybind11
from native import ROOT

SANITIZERS = "address,undefined"
OPTIONS = {
    # CPython leaks by design; a failed allocation is for the code under test to handle.
    "ASAN_OPTIONS": "detect_leaks=0:halt_on_error=1:allocator_may_return_null=1:max_allocation_size_mb=1024"
    ":hard_rss_limit_mb=4096:quarantine_size_mb=32",
    "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
    "OPENBLAS_NUM_THREADS": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
}
# One error for each runtime: a run is worth nothing if they do not stop the process.
CANARY = """
extern "C" int beyond(int size) { volatile char* p = new char[size]; return p[size]; }
extern "C" int overflow(int size) { return size + 0x7fffffff; }
"""


def compiler() -> list[str]:
    """The C++ compiler, as a command."""
    return shlex.split(os.environ.get("CXX", "g++"))


def runtimes() -> str:
    """What has to be loaded before Python. The last one, or the sanitizers would miss its exceptions."""
    found = []
    for name in ("libasan.so", "libubsan.so", "libstdc++.so"):
        command = [*compiler(), f"-print-file-name={name}"]
        path = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
        if not Path(path).is_absolute():
            raise SystemExit(
                f"{shlex.join(command)} says {path!r}: install GCC's sanitizers, or set CXX to g++"
            )
        found.append(str(Path(path).resolve()))
    return ":".join(found)


def build(work: Path) -> None:
    """``specee`` with a sanitized extension in ``work/package``, beside the fuzz loop as ``specee_fuzz``."""
    package, objects = work / "package", work / "objects"
    shutil.rmtree(package, ignore_errors=True)
    ignored = shutil.ignore_patterns("*.so", "__pycache__")
    shutil.copytree(ROOT / "specee", package / "specee", ignore=ignored)
    (package / "specee_fuzz").symlink_to(ROOT / "tests" / "fuzz")
    objects.mkdir(parents=True, exist_ok=True)
    bindings = [path for path in native.sources() if path.is_relative_to(ROOT / "csrc")]
    bindings += sorted(ROOT.glob("csrc/bindings/*.cpp"))
    include = [f"-I{sysconfig.get_path('include')}", f"-I{pybind11.get_include()}"]

    def compile_one(source: Path) -> Path:
        output = objects / f"{source.parent.name}-{source.stem}.o"
        flags = [*native.compile_flags(source, SANITIZERS), "-fPIC", *include]
        subprocess.run([*compiler(), *flags, "-c", source, "-o", output], check=True)
        return output

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        outputs = list(pool.map(compile_one, bindings))
    extension = package / "specee" / f"_cpu{sysconfig.get_config_var('EXT_SUFFIX')}"
    link = ["-shared", "-pthread", f"-fsanitize={SANITIZERS}"]
    subprocess.run([*compiler(), *link, *outputs, "-o", extension], check=True)


def environment(package: Path) -> dict[str, str]:
    """Of a Python that imports from ``package`` under the sanitizers."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("SPECEE_")}
    return clean | OPTIONS | {"LD_PRELOAD": runtimes(), "PYTHONPATH": str(package)}


def check_canary(work: Path) -> None:
    """Raise SystemExit unless errors of both kinds stop Python."""
    source, library = work / "canary.cpp", work / "canary.so"
    source.write_text(CANARY)
    flags = [f"-fsanitize={SANITIZERS}", *native.SANITIZED, "-shared", "-fPIC"]
    subprocess.run([*compiler(), *flags, source, "-o", library], check=True)
    for function, report in (("beyond", "heap-buffer-overflow"), ("overflow", "signed integer overflow")):
        code = f"import ctypes; ctypes.CDLL({str(library)!r}).{function}(7)"
        done = subprocess.run(
            [sys.executable, "-c", code], check=False, capture_output=True, text=True, env=environment(work)
        )
        if done.returncode == 0 or report not in done.stderr:
            raise SystemExit(f"the sanitizers do not work: no {report!r} in this:\n{done.stderr}")


def main() -> int:
    """Build, check the tools, run; the loop's exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--case", help="repeat this one only")
    parser.add_argument(
        "--work", type=Path, default=ROOT / "build" / "fuzz", help="folder for objects and files"
    )
    parser.add_argument("--plant", help="break the loader first (tests/fuzz/planted.py): the run must fail")
    options = parser.parse_args()
    work = options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    begin = time.monotonic()
    build(work)
    check_canary(work)
    print(f"{SANITIZERS}: built in {time.monotonic() - begin:.0f} s", flush=True)
    print(f"seed {options.seed}", flush=True)
    command = [sys.executable, "-m", "specee_fuzz", "--work", str(work), "--under", str(work / "package")]
    command += ["--seed", str(options.seed), "--seconds", str(options.seconds)]
    command += ["--case", options.case] if options.case else []
    command += ["--plant", options.plant] if options.plant else []
    for old in work.glob("seed-*.gguf"):
        old.unlink()
    # From there, since Python looks into the current folder first, and ./specee is not what was built.
    package = work / "package"
    status = subprocess.run(command, check=False, env=environment(package), cwd=package).returncode
    if status:
        left = ", ".join(str(path) for path in sorted(work.glob(f"seed-{options.seed}-case-*.gguf")))
        print(f"failed with exit status {status}, seed {options.seed}, file: {left}", file=sys.stderr)
    return 1 if status else 0


if __name__ == "__main__":
    sys.exit(main())
