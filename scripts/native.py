"""Builds the engine without Python, and runs tests/native under sanitizers.

    python scripts/native.py [--work FOLDER] [--rounds N] [--soak N] [--static] SANITIZERS...

SANITIZERS: ``address,undefined``, ``thread`` or ``none``, one build and one run each. Flags are those of
csrc/native_flags.py, but -O1 under a sanitizer, so that its reports have readable stacks; -O0 for kernels,
whose instrumented templates take longer to optimise than to run as they are.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "csrc"))
import native_flags  # noqa: E402  not on the path: it is not part of the package

ROUNDS = {"none": 200, "address,undefined": 30, "thread": 20}
SOAK = 100  # requests; a few seconds
SANITIZED = ["-O1", "-g1", "-fno-omit-frame-pointer", "-fno-sanitize-recover=all", "-Werror"]


def sources() -> list[Path]:
    """The engine and its native tests."""
    folders = ("csrc/cpu", "csrc/policy", "tests/native")
    found = sorted(path for folder in folders for path in ROOT.glob(f"{folder}/*.cpp"))
    return [path for path in found if native_flags.compiled(path.name)]


def compile_flags(source: Path, sanitizer: str) -> list[str]:
    """Everything between the compiler and the file."""
    own = native_flags.RELEASE if sanitizer == "none" else [*SANITIZED, f"-fsanitize={sanitizer}"]
    if sanitizer != "none" and source.name.startswith("kernels_"):
        own = [*own, "-O0"]
    macros = [f"-D{'='.join(native_flags.X86_MACRO)}"] if native_flags.on_x86_64_linux() else []
    include = [f"-I{ROOT / folder}" for folder in native_flags.INCLUDE]
    return [*native_flags.COMMON, *own, *macros, *include, *(native_flags.isa_flags(source.name) or [])]


def build(sanitizer: str, work: Path, static: bool, built: Path | None = None) -> Path:
    """Compile and link the driver; its path. Raises CalledProcessError after the compiler's own words.

    Objects of the engine that setup.py left below ``built`` are taken as they are.
    """
    compiler = shlex.split(os.environ.get("CXX", "g++"))
    folder = work / sanitizer.replace(",", "-")
    folder.mkdir(parents=True, exist_ok=True)

    def compile_one(source: Path) -> str:
        own = source.relative_to(ROOT).with_suffix(".o")
        if built and own.parts[0] == "csrc":
            (ready,) = built.glob(f"**/{own}")  # exactly one, or what would be tested is something else
            return str(ready)
        output = folder / own.name
        subprocess.run([*compiler, *compile_flags(source, sanitizer), "-c", source, "-o", output], check=True)
        return str(output)

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        objects = list(pool.map(compile_one, sources()))
    link = [
        "-pthread",
        *([] if sanitizer == "none" else [f"-fsanitize={sanitizer}"]),
        *(["-static"] if static else []),
    ]
    driver = folder / "driver"
    subprocess.run([*compiler, *objects, *link, "-o", driver], check=True)
    return driver


def run(driver: Path, rounds: int, soak: int, seed: int) -> None:
    """Run the driver; any sanitizer report or failed check raises CalledProcessError."""
    options = {
        "ASAN_OPTIONS": "detect_leaks=1",
        "TSAN_OPTIONS": "halt_on_error=1",
        "UBSAN_OPTIONS": "print_stacktrace=1",
    }
    command = [driver, "--rounds", str(rounds), "--soak", str(soak), "--seed", str(seed)]
    subprocess.run(command, check=True, env=os.environ | options)


def main() -> int:
    """Build and run once for each sanitizer named."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sanitizers", nargs="+", choices=ROUNDS, metavar="SANITIZERS")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "native", help="folder for objects")
    parser.add_argument(
        "--rounds", type=int, help="random cases of each test (default: depends on the sanitizer)"
    )
    parser.add_argument("--soak", type=int, default=SOAK, help="requests from two threads on one engine")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--static", action="store_true", help="link the driver statically")
    options = parser.parse_args()
    for sanitizer in options.sanitizers:
        begin = time.monotonic()
        driver = build(sanitizer, options.work, options.static)
        built = time.monotonic()
        print(f"{sanitizer}: built in {built - begin:.0f} s", flush=True)
        try:
            run(driver, options.rounds or ROUNDS[sanitizer], options.soak, options.seed)
        except subprocess.CalledProcessError as error:
            print(f"{sanitizer}: failed with exit status {error.returncode}", file=sys.stderr)
            return 1
        print(f"{sanitizer}: ran in {time.monotonic() - built:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
