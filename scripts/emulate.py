"""Runs the native tests on an emulated processor that has every x86 instruction set we compile for.

    python scripts/emulate.py [--work FOLDER] [--built FOLDER] [--rounds N] [--seed N]

The very instructions of the release build are executed, AVX-512 and its BF16 products included, by the Bochs
emulator on any x86-64 Linux machine. One thread only: the emulated machine has one processor.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import bochs
import native
from emulator import Machine

# Those that few machines run themselves; the sanitizers' runs test the others.
REQUIRED = ("avx512", "avx512vnni", "avx512bf16")


def main() -> int:
    """Build the driver statically, run it, and return its exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--work", type=Path, default=native.ROOT / "build" / "emulate", help="folder for objects"
    )
    parser.add_argument("--built", type=Path, help="take the engine's objects from this build of setup.py")
    parser.add_argument("--rounds", type=int, default=10, help="random cases of each test")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    driver = native.build("none", options.work, static=True, built=options.built)
    arguments = ["--rounds", str(options.rounds), "--seed", str(options.seed), "--threads", "1"]
    for isa in REQUIRED:
        arguments += ["--require", isa]
    begin = time.monotonic()
    status = Machine(bochs.load_bochs(options.work), driver, arguments).run()
    print(f"emulated run ended with exit status {status} after {time.monotonic() - begin:.0f} s")
    return status


if __name__ == "__main__":
    sys.exit(main())
