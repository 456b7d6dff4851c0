"""The same model twice, with early exits in one launch and step by step, and texts that both go on with."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from specee.backends.cuda import CudaBackend
from specee.backends.cuda_exit_rounds import ExitLaunch
from specee.backends.protocol import Exit, ExitCall, Exits
from specee.cuda.graph import Means
from specee.drafting.columns import guessable
from specee.models.exit_parts import ExitParts
from specee.types import ModelConfig, Sampling
from tests.graph.place import Place
from tests.random_drafter import random_parts
from tests.random_exits import random_exits
from tests.random_model import SHAPES, random_model

CAPACITY = 64
GREEDY = Sampling()
LAYERS = 5
EVERY = range(1, LAYERS)
CANDIDATES = 12
VOCABULARY = 24  # what a predictor is sure of is confirmed now and then, and now and then not
WAITING = 16


def deep(shape: str, vocabulary: int = VOCABULARY) -> ModelConfig:
    """A model with more layers, and fewer tokens."""
    one = SHAPES[shape]
    windows = tuple(one.windows[layer % len(one.windows)] for layer in range(LAYERS))
    return replace(one, num_layers=LAYERS, windows=windows, vocab_size=vocabulary)


def says(layers: dict[int, float]) -> ExitParts:
    """Predictors whose chance is that of their layer, whatever they see."""
    count, width = len(layers), 8
    zeros = np.zeros((count, width), np.float32)
    chances = np.array(list(layers.values()))
    return ExitParts(
        tuple(layers),
        np.zeros((count, width, 3 * CANDIDATES), np.float32),
        *(zeros, zeros, np.log(chances / (1 - chances)).astype(np.float32)),
        np.full(count, 1 / count, np.float32),
    )


@dataclass
class Side:
    """A backend, with a block and predictors of its own."""

    backend: CudaBackend
    drafter: Any
    exits: Any

    @property
    def taken(self) -> int:
        """Calls in one launch."""
        return self.backend._exits.taken


@dataclass
class Text:
    """A text of one side; ``sampling`` draws it."""

    side: Side
    state: Any
    column: Any
    sampling: Sampling

    def call(self, layers: Seq[int], threshold: float) -> ExitCall:
        """For the newest row; no layers where too many wait, or the block knows no states."""
        slot = self.state.length - 1
        full = slot - self.state.frontier[-1] >= WAITING or not guessable(self.state)
        return ExitCall(
            self.state, self.column, slot, () if full else tuple(layers), threshold, self.sampling
        )


class ExitPair:
    """``whole`` has launches, ``steps`` has none."""

    def __init__(
        self,
        place: Place,
        rng: np.random.Generator,
        shape: str = "tiles",
        weights: Any = "bf16",
        parts: ExitParts | None = None,
        vocabulary: int = VOCABULARY,
    ) -> None:
        self.config, self.place, self.weights = deep(shape, vocabulary), place, weights
        self.seed = int(rng.integers(2**31))
        self.parts = random_exits(self.config, rng, candidates=CANDIDATES) if parts is None else parts
        self.block = random_parts(self.config, (1, LAYERS), rng)
        self.whole, self.steps = self.side(one_by_one=False), self.side(one_by_one=True)
        self.sides = (self.whole, self.steps)

    def side(self, *, one_by_one: bool, **options: Any) -> Side:
        """Another of the same weights."""
        launcher = self.place.launcher
        backend = CudaBackend(
            *(self.config, random_model(self.config, self.seed, self.weights).slabs(), self.weights),
            device=self.place.device,
            launcher=launcher,
            means=Means(launcher, launcher.function, self.place.library, one_by_one),
            **options,
        )
        return Side(backend, backend.drafter(self.block), backend.exit_predictors(self.parts))

    def texts(
        self, side: Side, prompts: Seq[Seq[int]], samplings: Seq[Sampling], capacity: int = CAPACITY
    ) -> list[Text]:
        """Poisoned, complete but for the newest row, all layers kept."""
        found = []
        for prompt, sampling in zip(prompts, samplings, strict=True):
            state = side.backend.sequence(capacity, poison=True)
            state.keep(range(1, LAYERS + 1), capacity)
            side.backend.advance([(state, state.append(prompt)[:-1])], LAYERS)
            found.append(Text(side, state, side.drafter.column(capacity, "fp16"), sampling))
        return found


def ask(texts: Seq[Text], layers: Seq[Seq[int]], thresholds: Seq[float], *, confirm: bool = True) -> Exits:
    """One call of all texts."""
    side = texts[0].side
    calls = [
        text.call(own, threshold) for text, own, threshold in zip(texts, layers, thresholds, strict=True)
    ]
    return side.backend.leave_early(side.drafter, side.exits, calls, confirm=confirm)


def some_prompts(rng: np.random.Generator, count: int = 2) -> list[list[int]]:
    return [rng.integers(0, CANDIDATES, 5 - 2 * (at % 2)).tolist() for at in range(count)]


def some_samplings(rng: np.random.Generator, count: int = 2) -> list[Sampling]:
    """Every other one greedy."""
    seeds = rng.integers(2**63, size=count).tolist()
    return [GREEDY if at % 2 == 0 else Sampling(0.8, seed=2 * seed + 1) for at, seed in enumerate(seeds)]


def scripted(
    place: Place, rng: np.random.Generator, leaves: int | None = None, vocabulary: int = CANDIDATES
) -> ExitPair:
    """All tokens are candidates, and predictors are sure after ``leaves`` layers alone."""
    chances = {layer: 0.9 if layer == leaves else 0.1 for layer in EVERY}
    return ExitPair(place, rng, parts=says(chances), vocabulary=vocabulary)


def both(pair: ExitPair, rng: np.random.Generator, count: int = 2, **options: Any) -> tuple[list[Text], ...]:
    """As many texts of both sides."""
    prompts, samplings = some_prompts(rng, count), some_samplings(rng, count)
    return tuple(pair.texts(side, prompts, samplings, **options) for side in pair.sides)


def poison(side: Side) -> None:
    """What a launch leaves in its arrays is no number when the next one comes.

    All that it has to set before it reads it; what is written once is left: which rows are the newest, and
    that rows are alone, and without tails.
    """
    for launch in side.backend._kept._rounds._known.values():
        if isinstance(launch, ExitLaunch):
            parts = launch._parts
            spoil(parts._rows)
            spoil(parts.state)
            spoil((parts.entering, parts.states, parts._normed, parts._logits, parts._few, parts._chances))
            spoil((parts._pieces, parts._accepted))


def spoil(value: Any) -> None:
    """Fill an array, or each one in a record, a tuple or a dictionary."""
    if isinstance(value, torch.Tensor):
        value.fill_(float("nan") if value.is_floating_point() else min(1 << 20, torch.iinfo(value.dtype).max))
    else:
        for one in value if isinstance(value, tuple) else getattr(value, "__dict__", value).values():
            spoil(one)


def leave(texts: Seq[Text], layers: Seq[Seq[int]], thresholds: Seq[float]) -> Exits:
    """The same, over arrays full of what nobody should read; and they have their tokens then."""
    poison(texts[0].side)
    found = ask(texts, layers, thresholds)
    for text, exit_ in zip(texts, found.exits, strict=True):
        text.state.append([exit_.token])
    return found


def contents(state: Any) -> tuple[Any, ...]:
    """All that a sequence has and promises, to the bit."""
    rows = [state.row(slot) for slot in (*range(state.length), *state.speculative)]
    own = [state.find(row.slot) for row in rows]
    hidden = [None if row.hidden is None else row.hidden.cpu().numpy().tobytes() for row in own]
    kept = [{layer: kept.cpu().numpy().tobytes() for layer, kept in row.kept.items()} for row in own]
    cache = [
        part.tobytes()
        for layer in range(LAYERS)
        for part in state.kv(layer, [row.slot for row in rows if row.done > layer])
    ]
    return rows, state.frontier, state.kept, hidden, kept, cache


def same(one: Seq[Text], other: Seq[Text]) -> None:
    """Fail where two sides differ."""
    for a, b in zip(one, other, strict=True):
        names = ("rows", "frontier", "kept positions", "states", "kept states", "keys and values")
        for name, first, second in zip(names, contents(a.state), contents(b.state), strict=True):
            assert first == second, name


def bits(exits: Seq[Exit]) -> list[tuple[int, int, str]]:
    """Confidences to the bit."""
    return [(one.layer, one.token, float(one.confidence).hex()) for one in exits]
