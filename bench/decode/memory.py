"""Load time and peak resident memory of a contender, each run in a process of its own.

    python -m bench.decode.memory [--contender specee:packed] [--context 2048] [--runs 3]

The process fills the context but for a few positions, which it decodes. Peak memory is its greatest resident
set less that after imports; a file mapped into memory counts as far as it was read. Exits with 1 if ours is
over 1.3 x (weights + cache).
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from specee.integrations.stopwatch import Stopwatch

from .. import options as common
from ..progress import progress
from . import contenders

LIMIT = 1.3
NEW_TOKENS = 8  # the prompt before them is what sets the peak
_RUSAGE_UNIT = 1 if sys.platform == "darwin" else 1024


def resident_bytes() -> int:
    """Resident set now; where /proc is missing, the greatest so far."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    except OSError:
        return peak_resident_bytes()


def peak_resident_bytes() -> int:
    """Greatest resident set of this program.

    Linux's ru_maxrss also knows that of the process that started this one, so /proc goes first.
    """
    try:
        found = re.search(r"^VmHWM:\s*(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return int(found[1]) << 10 if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RUSAGE_UNIT


def measure(name: str, model: str | None, threads: int, context: int, tokens: int) -> dict[str, Any]:
    """Load and decode in this process."""
    from specee.backends import cpu  # noqa: F401  (imports are not part of the figure)
    from specee.models import gguf_file, huggingface  # noqa: F401

    contenders.check(name)
    after_imports = resident_bytes()
    start = time.perf_counter()
    setting = contenders.Setting(model, threads, context)
    contender = contenders.prepare(name, setting)
    load_s = time.perf_counter() - start
    contender.run([1] * (context - tokens), tokens, Stopwatch())
    peak = peak_resident_bytes() - after_imports
    found = {"load_s": load_s, "peak_bytes": peak, **contender.facts}
    if contender.is_ours:
        cache = contender.backend.sequence(context).cache_bytes
        needed = contender.backend.weight_bytes + cache
        found |= {"cache_bytes": cache, "ratio": peak / needed}
    return found


def in_child(
    name: str, model: str | None, threads: int, *, context: int, tokens: int = NEW_TOKENS
) -> dict[str, Any]:
    """The same in a fresh process. Raises RuntimeError with its words if that fails."""
    command = [sys.executable, "-m", f"{__package__}.memory", "--child", "--contender", name]
    command += ["--threads", str(threads), "--context", str(context), "--tokens", str(tokens)]
    if model is not None:
        command += ["--model", model]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"measuring the memory of {name} failed: {done.stderr.strip()[-2000:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    """Run a few child processes and report each."""
    parser = common.parser(__doc__)
    parser.add_argument("--contender", default="specee", help="default: %(default)s")
    parser.add_argument("--context", type=int, default=2048)
    parser.add_argument("--tokens", type=int, default=NEW_TOKENS)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = common.parse(parser)
    where = (options.contender, options.model, options.threads)
    if options.child:
        print(json.dumps(measure(*where, options.context, options.tokens)))
        return
    runs = [
        in_child(*where, context=options.context, tokens=options.tokens)
        for _ in progress(range(options.runs), "process")
    ]
    what = {"what": "load and peak memory", "contender": options.contender, "context": options.context}
    common.finish(options, "memory", {**what, "threads": options.threads, "runs": runs})
    if any(run.get("ratio", 0) > LIMIT for run in runs):
        sys.exit(f"peak memory is over {LIMIT} x (weights + cache)")


if __name__ == "__main__":
    main()
