"""What the nodes of a tree cost beside one row: candidates scored together, and paths decided from nodes.

    python -m bench.decode.nodes [--weights packed]... [--repeats 200]

Scoring: the final norm and each node's rows of the head, for all nodes in one call (SpecEE's grouped
scoring), from states after one layer, with the rows gathered anew. Asking: the same with rows gathered
before, and the predictors on top: what a checked layer costs a tree. Gathering: each node's rows of the head,
copied once a tree. Row counts take turns; ratios are to the single row of the same round. Deciding: the
merged mapping over random trees, with half of the nodes firing at each of two layers.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import specee
from specee.backends.protocol import AskCall
from specee.drafting.path_decisions import PathDecisions
from specee.errors import ConfigurationError
from specee.types import Sampling

from .. import options as common
from ..progress import progress
from ..spread import ratio, spread
from .contenders import WEIGHTS
from .rows import CONTEXT, filled, ids

NODES = (1, 8, 15, 30, 45, 60)
_SEED = 5
_DECISIONS = 50  # of a tree, that are timed as one


def clocked(call: Callable[[], object]) -> float:
    """Seconds that it takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def calls(model: specee.Model, counts: Sequence[int]) -> dict[str, dict[int, Callable[[], object]]]:
    """For each number of nodes what is timed. Raises ConfigurationError for a model without predictors."""
    backend, exits = model.backend, model.heads.exits
    if exits is None:
        raise ConfigurationError(
            "no exit predictors are loaded: name a model with a speculator that has some"
        )
    rng, config = np.random.default_rng(_SEED), backend.config
    layer = exits.layers[len(exits.layers) // 2]
    found: dict[str, dict[int, Callable[[], object]]] = {"score": {}, "ask": {}, "gather": {}}
    for count in counts:
        state = filled(backend, CONTEXT, count)
        state.keep((layer,), count)
        slots = state.branch(ids(count, config.vocab_size), [-1] * count)
        backend.advance([(state, slots)], layer)
        known = np.array([rng.permutation(config.vocab_size)[: exits.candidates] for _ in slots])
        likely = known.tolist()
        rows = backend.exit_rows(exits, likely)
        work, asked = [(state, slots)], [AskCall(state, slots, range(count), Sampling())]
        found["score"][count] = lambda w=work, k=known: backend.score(w, (layer,), k)  # type: ignore[misc]
        found["ask"][count] = lambda r=rows, a=asked: backend.ask_exits(r, layer, a)  # type: ignore[misc]
        found["gather"][count] = lambda k=likely: backend.exit_rows(exits, k)  # type: ignore[misc]
    return found


def measure_calls(model: specee.Model, repeats: int, counts: Sequence[int] = NODES) -> dict[str, Any]:
    """Microseconds of each call by nodes, and their ratio to one node's."""
    found: dict[str, Any] = {}
    for name, by_count in calls(model, counts).items():
        for call in by_count.values():
            call()  # not counted
        seconds: dict[int, list[float]] = {count: [] for count in counts}
        for turn in progress(range(repeats), "round"):
            for count in counts if turn % 2 == 0 else reversed(counts):
                seconds[count].append(clocked(by_count[count]))
        found[name] = {
            str(count): {
                "us": spread([1e6 * one for one in seconds[count]]),
                "ratio": ratio(seconds[count], seconds[counts[0]]),
                # The ratio of two medians: steadier than single pairs where a machine is disturbed.
                "ratio_of_medians": statistics.median(seconds[count]) / statistics.median(seconds[counts[0]]),
            }
            for count in counts
        }
    return found


def measure_decisions(repeats: int, counts: Sequence[int] = NODES[1:]) -> dict[str, Any]:
    """Microseconds that a tree's decisions take, by nodes, and how far off a straight line they are."""
    rng = np.random.default_rng(_SEED)
    trees = {
        count: ([*range(count)], [-1, *[int(rng.integers(0, node)) for node in range(1, count)]])
        for count in counts
    }

    def decide(count: int) -> None:
        tokens, parents = trees[count]
        for _ in range(_DECISIONS):
            decisions = PathDecisions(tokens, parents, tokens)
            for layer in (1, 2):
                decisions.decide(layer, {node: node for node in decisions.waiting[layer - 1 :: 2]})

    seconds: dict[int, list[float]] = {count: [] for count in counts}
    for turn in progress(range(repeats), "round"):
        for count in counts if turn % 2 == 0 else reversed(counts):
            seconds[count].append(clocked(lambda count=count: decide(count)) / _DECISIONS)  # type: ignore[misc]
    medians = [1e6 * statistics.median(seconds[count]) for count in counts]
    slope, begin = np.polyfit(counts, medians, 1)
    line = begin + slope * np.array(counts)
    return {
        "us": {str(count): spread([1e6 * one for one in seconds[count]]) for count in counts},
        "us_per_node": float(slope),
        "us_begin": float(begin),
        "farthest_off_the_line": float(np.max(np.abs(line / medians - 1))),
    }


def measure(
    weights: Sequence[str], *, model: str | None = None, threads: int, repeats: int = 200
) -> dict[str, Any]:
    """Calls for every format of the weights, and decisions, which know of none."""
    found = {}
    for name in weights:
        loaded = specee.load(model, weights=name, backend="cpu", threads=threads)  # type: ignore[arg-type]
        found[loaded.backend.weights] = measure_calls(loaded, repeats)
    return {
        "what": "nodes of a tree beside one row, at one layer",
        "threads": threads,
        "repeats": repeats,
        "weights": found,
        "decisions": measure_decisions(max(1, repeats // 4)),
    }


def main() -> None:
    """Run and save."""
    parser = common.parser(__doc__)
    parser.add_argument(
        "--weights", action="append", choices=WEIGHTS, help="may be given again; default: auto"
    )
    parser.add_argument("--repeats", type=int, default=200)
    options = common.parse(parser)
    result = measure(
        options.weights or ["auto"], model=options.model, threads=options.threads, repeats=options.repeats
    )
    common.finish(options, "nodes", result)


if __name__ == "__main__":
    main()
