"""What a build of specee takes for rows: run as text by ``builds.py``, in a process that imports that build.

Arguments: weights, model ("" for the default one), threads, context, row counts. Prints a line once it is
ready, and one of seconds, a number for each row count, for every line that it reads. It imports
nothing else of the project: an older build has other benches.
"""

import sys
import time

import specee

weights, model, threads, context, *counts = sys.argv[1:]
backend = specee.load(model or None, weights=weights, backend="cpu", threads=int(threads)).backend
positions, layers = int(context), backend.config.num_layers
most = max(int(count) for count in counts)
sequence = backend.sequence(positions + most)
text = [100 + 37 * index % (backend.config.vocab_size - 200) for index in range(positions)]
slots = sequence.append(text)
backend.advance([(sequence, slots[-1:])], layers)


def once(rows: int) -> float:
    """Seconds to verify a chain of ``rows``."""
    slots = sequence.branch(text[:rows])
    begin = time.perf_counter()
    backend.advance([(sequence, slots)], layers)
    backend.argmax([(sequence, slots)])
    seconds = time.perf_counter() - begin
    sequence.prune(slots[:1])
    return seconds


print(backend.isa, flush=True)
for _ in sys.stdin:
    found = []
    for count in counts:
        once(int(count))  # the other build has had the caches
        found.append(once(int(count)))
    print(*found, flush=True)
