"""What rows and context cost: verifying n rows beside one, and one row after a long text.

    python -m bench.decode.rows [--weights packed]... [--repeats 60] [--contexts 128 1024 4096 8190]

Rows: at a short context and at a long one, n rows are appended as a speculative chain, taken through every
layer and the argmax of each is read, then they are pruned; that is what verifying a draft of n tokens costs.
Row counts take turns, so that drift of the machine is the same for all; ratios are to the single row of the
same round.
Context: one row after texts of several lengths, in turns, with the bytes of keys and values it reads.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import specee

from .. import options as common
from ..progress import progress
from ..spread import ratio, spread
from ..sweep import bandwidth
from .contenders import WEIGHTS

ROWS = (1, 2, 3, 4, 6, 8, 16)
CONTEXTS = (128, 1024, 4096, 8190)
CONTEXT, LONG_CONTEXT = 128, 4096


def ids(count: int, vocab: int) -> list[int]:
    """Any tokens, not all the same: what they are does not change the cost."""
    return [100 + (37 * index) % max(1, vocab - 200) for index in range(count)]


def filled(backend: Any, context: int, room: int) -> Any:
    """A sequence whose first ``context`` positions are done, with ``room`` slots more."""
    sequence = backend.sequence(context + room)
    slots = sequence.append(ids(context, backend.config.vocab_size))
    backend.advance([(sequence, slots[-1:])], backend.config.num_layers)
    return sequence


def once(backend: Any, sequence: Any, rows: int) -> float:
    """Seconds to verify a chain of ``rows``; the sequence is left as it was."""
    slots = sequence.branch(ids(rows, backend.config.vocab_size))
    start = time.perf_counter()
    backend.advance([(sequence, slots)], backend.config.num_layers)
    backend.argmax([(sequence, slots)])
    seconds = time.perf_counter() - start
    sequence.prune(slots[:1])
    return seconds


def kv_bytes(backend: Any, positions: int) -> int:
    """Bytes of keys and values that a row reads which attends to ``positions``, with the default cache."""
    config = backend.config
    width = 4 if backend.weights == "fp32" else 2
    attended = sum(min(window or positions, positions) for window in config.windows)
    return int(2 * config.kv_dim * width * attended)


def measure_rows(
    backend: Any, repeats: int, counts: Sequence[int] = ROWS, context: int = CONTEXT
) -> dict[str, Any]:
    """Cost of each number of rows, and its ratio to one."""
    sequence = filled(backend, context, max(counts))
    for count in counts:
        once(backend, sequence, count)  # not counted
    seconds: dict[int, list[float]] = {count: [] for count in counts}
    for turn in progress(range(repeats), "round"):
        for count in counts if turn % 2 == 0 else reversed(counts):
            seconds[count].append(once(backend, sequence, count))
    return {
        "context": context,
        "repeats": repeats,
        "rows": {
            str(count): {
                "ms": spread([1e3 * s for s in seconds[count]]),
                "ratio": ratio(seconds[count], seconds[counts[0]]),
                # The ratio of two medians: steadier than single pairs where the machine drifts slowly.
                "ratio_of_medians": spread(seconds[count])["median"] / spread(seconds[counts[0]])["median"],
            }
            for count in counts
        },
    }


def measure_contexts(backend: Any, repeats: int, contexts: Sequence[int] = CONTEXTS) -> dict[str, Any]:
    """Cost of one row at each context that the model has room for."""
    possible = [context for context in contexts if context < backend.config.max_position]
    sequences = {context: filled(backend, context, 1) for context in progress(possible, "context")}
    seconds: dict[int, list[float]] = {context: [] for context in possible}
    sweeps = []
    for turn in progress(range(repeats), "round"):
        sweeps.append(bandwidth(backend.threads))
        for context in possible if turn % 2 == 0 else possible[::-1]:
            seconds[context].append(once(backend, sequences[context], 1))
    found = {}
    for context in possible:
        kv = kv_bytes(backend, context + 1)
        read = backend.step_bytes + kv
        rates = [read / s / 1e9 for s in seconds[context]]
        found[str(context)] = {
            "ms": spread([1e3 * s for s in seconds[context]]),
            "kv_bytes": kv,
            "bytes": read,
            "gb_s": spread(rates),
            "share_of_bandwidth": ratio(rates, sweeps),
            "ratio_to_shortest": ratio(seconds[context], seconds[possible[0]]),
        }
    return {"repeats": repeats, "bandwidth_gb_s": spread(sweeps), "contexts": found}


def measure(
    weights: Sequence[str],
    *,
    model: str | None = None,
    threads: int,
    repeats: int = 60,
    contexts: Sequence[int] = CONTEXTS,
) -> dict[str, Any]:
    """Both, for every format of the weights."""
    found = {}
    for name in weights:
        backend: Any = specee.load(model, weights=name, backend="cpu", threads=threads).backend
        long = min(LONG_CONTEXT, backend.config.max_position - max(ROWS))
        found[backend.weights] = {
            "isa": backend.isa,
            "step_bytes": backend.step_bytes,
            "verify": measure_rows(backend, repeats),
            "verify_long": measure_rows(backend, max(1, repeats // 4), context=long),
            "context": measure_contexts(backend, max(1, repeats // 4), contexts),
        }
    return {"what": "cost of rows and of context, one sequence", "threads": threads, "weights": found}


def main() -> None:
    """Run and save."""
    parser = common.parser(__doc__)
    parser.add_argument(
        "--weights", action="append", choices=WEIGHTS, help="may be given again; default: auto"
    )
    parser.add_argument("--repeats", type=int, default=60)
    parser.add_argument("--contexts", type=int, nargs="+", default=CONTEXTS)
    options = common.parse(parser)
    result = measure(
        options.weights or ["auto"],
        model=options.model,
        threads=options.threads,
        repeats=options.repeats,
        contexts=options.contexts,
    )
    common.finish(options, "rows", result)


if __name__ == "__main__":
    main()
