"""A model with rounds in one launch, and the same model without: what both say of the same calls."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Seq
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from specee.backends.cuda import CudaBackend  # noqa: E402
from specee.backends.plain_drafts import Parts  # noqa: E402
from specee.backends.protocol import (  # noqa: E402
    LayerChainCall,
    RoundCall,
    RoundTurn,
)
from specee.cuda.graph import Means  # noqa: E402
from specee.types import Sampling  # noqa: E402
from tests.graph.place import Place  # noqa: E402
from tests.random_model import SHAPES, random_model  # noqa: E402

CAPACITY = 64
NOBODY = Parts(None, None, None)  # drafts beside exit layers
GREEDY = Sampling()


class Pair:
    """The same model twice: with rounds in one launch, and without."""

    def __init__(
        self, place: Place, rng: np.random.Generator, shape: str = "tiles-short", weights: Any = "bf16"
    ) -> None:
        self.config = SHAPES[shape]
        self.seed = int(rng.integers(2**31))
        self.weights, self.place = weights, place
        launcher = place.launcher
        self.whole = self._backend(Means(launcher, launcher.function, place.library))
        self.steps = self._backend(Means(launcher, launcher.function, place.library, one_by_one=True))
        assert self.steps.graphs_missing == "kernels are to be launched one by one"
        self.texts = [rng.integers(0, self.config.vocab_size, n).tolist() for n in (5, 3)]

    def _backend(self, means: Means) -> CudaBackend:
        model = random_model(self.config, seed=self.seed, kind=self.weights)
        return CudaBackend(
            *(self.config, model.slabs(), self.weights),
            device=self.place.device,
            launcher=self.place.launcher,
            means=means,
        )

    @property
    def taken(self) -> int:
        """Rounds in one launch."""
        return self.whole._rounds.taken

    def sequences(self, backend: CudaBackend, **options: Any) -> list[Any]:
        found = []
        for text in self.texts:
            sequence = backend.sequence(CAPACITY, **options)
            sequence.append(text)
            found.append(sequence)
        return found

    def both(
        self, rounds: Callable[[CudaBackend, list[Any]], list[RoundTurn]], **options: Any
    ) -> tuple[list[RoundTurn], list[Any]]:
        """What both say, without its seconds, and the sequences of the one; they are the same."""
        said, states = [], []
        for backend in (self.whole, self.steps):
            sequences = self.sequences(backend, **options)
            said.append([turn.texts for turn in rounds(backend, sequences)])
            states.append([contents(one, self.config.num_layers) for one in sequences])
            if backend is self.whole:
                found = sequences
        assert said[0] == said[1]
        for one, other in zip(*states, strict=True):
            assert one == other
        return said[0], found


def contents(sequence: Any, layers: int) -> tuple[Any, ...]:
    """Rows, and the bits of keys and values of those that are complete."""
    rows = [sequence.row(slot) for slot in range(sequence.length)]
    done = [row.slot for row in rows if row.done == layers]
    cache = [part.tobytes() for layer in range(layers) for part in sequence.kv(layer, done)]
    return rows, sequence.frontier, sequence.speculative, cache


def plain(
    turns: int, samplings: Seq[Sampling] = (GREEDY, GREEDY), ends: Seq[int] = (), remaining: int = 40
) -> Any:
    def run(backend: CudaBackend, sequences: list[Any]) -> list[RoundTurn]:
        calls = [
            RoundCall(one, sampling, ends, remaining)
            for one, sampling in zip(sequences, samplings, strict=True)
        ]
        return backend.run_rounds(calls, turns=turns)

    return run


def drafting(
    turns: int,
    length: int,
    layer: int,
    ends: Seq[int] = (),
    remaining: int = 40,
    stop_below: float = 0.0,
    lengths: Seq[int] | None = None,
) -> Any:
    def run(backend: CudaBackend, sequences: list[Any]) -> list[RoundTurn]:
        found = []
        left = [remaining] * len(sequences)
        for _ in range(turns):
            calls = [
                RoundCall(
                    *(one, GREEDY, ends, more),
                    LayerChainCall(one, layer, None, own, stop_below, GREEDY) if own else None,
                )
                for one, more, own in zip(sequences, left, lengths or [length] * len(left), strict=True)
            ]
            (done,) = backend.run_rounds(calls)
            found.append(done)
            left = [more - len(text.tokens) for more, text in zip(left, done.texts, strict=True)]
            if 0 in left or any(text.tokens[-1] in ends for text in done.texts):
                break
        return found

    return run
