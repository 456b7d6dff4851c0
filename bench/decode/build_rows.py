"""What a build of specee takes for rows: run as text by ``builds.py``, in a process that imports that build.

Arguments: weights, model ("" for the default one), threads, context, "apart" for rows of texts of their own
or "together" for a chain of one, row counts. Prints a line once it is ready, and one of seconds, a number for
each row count, for every line that it reads. It imports nothing else of the project: an older build has other
benches.
"""

import sys
import time

import specee

weights, model, threads, context, texts, *counts = sys.argv[1:]
backend = specee.load(model or None, weights=weights, backend="cpu", threads=int(threads)).backend
positions, layers, vocab = int(context), backend.config.num_layers, backend.config.vocab_size
most = max(int(count) for count in counts)
chains = [most] if texts == "together" else [1] * most  # rows of each text
sequences = []
for number, rows in enumerate(chains):
    sequence = backend.sequence(positions + rows)
    text = [100 + (37 + number) * index % (vocab - 200) for index in range(positions)]
    slots = sequence.append(text)
    backend.advance([(sequence, slots[-1:])], layers)
    sequences.append(sequence)


def once(rows: int) -> float:
    """Seconds to verify that many rows."""
    each = [rows] if len(sequences) == 1 else [1] * rows
    tokens = [100 + 37 * index % (vocab - 200) for index in range(most)]
    work = [(one, one.branch(tokens[:length])) for one, length in zip(sequences, each, strict=False)]
    begin = time.perf_counter()
    backend.advance(work, layers)
    backend.argmax(work)
    seconds = time.perf_counter() - begin
    for one, slots in work:
        one.prune(slots[:1])
    return seconds


print(backend.isa, flush=True)
for _ in sys.stdin:
    found = []
    for count in counts:
        once(int(count))  # the other build has had the caches
        found.append(once(int(count)))
    print(*found, flush=True)
