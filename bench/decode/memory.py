"""Load time and peak resident memory of the default model, each measured in a process of its own.

    python -m bench.decode.memory [--weights bf16] [--context 2048]

Peak memory is the greatest resident set less that after imports. Exits with 1 if it is over
1.3 x (weights + cache).
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from typing import Any

from bench import machine

LIMIT = 1.3


def resident_bytes() -> int:
    """Resident set now (Linux)."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def measure(model: str | None, weights: str, context: int) -> dict[str, Any]:
    """Load and generate in this process."""
    import specee
    from specee.backends import cpu  # noqa: F401  (imports are not part of the figure)
    from specee.models import gguf_file, huggingface  # noqa: F401

    after_imports = resident_bytes()
    start = time.perf_counter()
    loaded = specee.load(model, weights=weights, backend="cpu")
    load_s = time.perf_counter() - start
    backend: Any = loaded.backend
    sequence = backend.sequence(context)
    slots = sequence.append([1] * context)
    backend.advance([(sequence, slots[-1:])], backend.config.num_layers)
    backend.argmax([(sequence, slots[-1:])])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - after_imports
    needed = backend.weight_bytes + sequence.cache_bytes
    return {
        "load_s": load_s,
        "peak_bytes": peak,
        "weight_bytes": backend.weight_bytes,
        "cache_bytes": sequence.cache_bytes,
        "ratio": peak / needed,
    }


def main() -> None:
    """Run a few child processes and report each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default=None)
    parser.add_argument("--weights", default="bf16", choices=["bf16", "fp32"])
    parser.add_argument("--context", type=int, default=2048)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--save", metavar="NAME", help="write bench/results/NAME.json")
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measure(options.model, options.weights, options.context)))
        return
    command = [sys.executable, "-m", "bench.decode.memory", *sys.argv[1:], "--child"]
    runs = []
    for _ in range(options.runs):
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        runs.append(json.loads(output.splitlines()[-1]))
        print(runs[-1])
    if any(run["ratio"] > LIMIT for run in runs):
        sys.exit(f"peak memory is over {LIMIT} x (weights + cache)")
    if options.save:
        result = {"what": "load and peak memory", "weights": options.weights, "context": options.context}
        print("saved", machine.save(options.save, {**result, "runs": runs}))


if __name__ == "__main__":
    main()
