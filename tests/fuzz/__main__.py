"""The loop: ``python -m ... --seed N --seconds S --work FOLDER``.

Each case is written to ``seed-N-case-K.gguf`` before it is tried and removed when it passed, so the file that
is left when the process dies, whatever of, is the one that killed it.
"""

from __future__ import annotations

import argparse
import faulthandler
import resource
import sys
import time
from collections import Counter
from itertools import count
from pathlib import Path

import specee._cpu

from . import planted
from .attempt import SECONDS, attempt
from .cases import make_case


def main() -> int:
    """Try cases until time is up; 1 after the first finding."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--case", type=int, help="this one only")
    parser.add_argument("--work", type=Path, required=True, help="folder for the files")
    parser.add_argument("--address-space", type=int, default=0, help="limit in MB (none under a sanitizer)")
    parser.add_argument(
        "--plant", choices=sorted(planted.BUGS), help="break the loader first: a finding is due"
    )
    parser.add_argument("--under", type=Path, help="folder that specee must have been imported from")
    options = parser.parse_args()
    if options.under and not Path(specee._cpu.__file__).is_relative_to(options.under):
        parser.error(f"{specee._cpu.__file__} was imported, not the extension in {options.under}")
    if options.address_space:
        resource.setrlimit(resource.RLIMIT_AS, (options.address_space << 20,) * 2)
    if options.plant:
        planted.BUGS[options.plant]()
    only = None if options.case is None else range(options.case, options.case + 1)
    status = loop(options.seed, options.seconds, options.work, only)
    if "torch" in sys.modules:
        print("torch was imported: loading a GGUF file must not need it")
        return 1
    return status


def loop(seed: int, seconds: float, work: Path, only: range | None = None) -> int:
    """Cases in order, with a table of what happened."""
    results: dict[str, Counter[str]] = {}
    end = time.monotonic() + seconds
    for number in only or count():
        if time.monotonic() > end:
            break
        case = make_case(seed, number)
        path = work / f"seed-{seed}-case-{number}.gguf"
        path.write_bytes(case.data)
        faulthandler.dump_traceback_later(2 * SECONDS, exit=True)
        outcome = attempt(path)
        faulthandler.cancel_dump_traceback_later()
        fault = outcome.fault
        if case.misplaced and outcome.result == "loaded":
            fault = f"loaded, although {case.misplaced}"
        if fault:
            print(f"seed {seed}, case {number} ({case.origin}: {', '.join(case.damage)}): {fault}")
            return 1
        path.unlink()
        for damage in (*case.damage, "all"):
            results.setdefault(damage, Counter())[outcome.result] += 1
    for damage, counts in sorted(results.items()):
        print(f"{damage:16}", ", ".join(f"{name} {times}" for name, times in counts.most_common()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
