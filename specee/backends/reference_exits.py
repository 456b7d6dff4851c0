"""Early exits of the reference backend: candidates, predictors, and the way through the layers."""

from __future__ import annotations

import time
from collections.abc import Callable
from collections.abc import Sequence as Seq
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor

from specee.backends.exit_parts import checked_exits
from specee.backends.protocol import Exit, ExitCall, Floats, Ints, SequenceState, Work
from specee.backends.reference_chain import catch_up
from specee.backends.reference_drafter import ReferenceColumn, ReferenceDrafter
from specee.backends.reference_sequence import ReferenceSequence
from specee.errors import RowError
from specee.models.exit_parts import MOST_CANDIDATES, ExitParts
from specee.sampling import sample
from specee.types import ModelConfig, Sampling

Embed = Callable[[int], Tensor]


class Scorer(Protocol):
    """As much of a backend as early exits need."""

    config: ModelConfig

    def advance(self, work: Work, to_layer: int) -> None:
        """See :meth:`.Backend.advance`."""

    def sample(self, work: Work, sampling: Seq[Sampling]) -> Ints:
        """See :meth:`.Backend.sample`."""

    def chances(self, predictors: ReferenceExits, layer: int, work: Work, rows: Seq[ExitRow]) -> list[float]:
        """What a layer's predictor says of rows by the states where they are; ``rows`` see their logits."""


class ReferenceExits:
    """See :meth:`.Backend.exit_predictors`."""

    def __init__(self, parts: ExitParts, config: ModelConfig) -> None:
        self.config = config
        self._parts = checked_exits(parts, config)
        self.layers, self.candidates = self._parts.layers, self._parts.candidates

    def check(self, layers: Seq[int]) -> None:
        """Raise RowError for layers out of order, or without a predictor."""
        if list(layers) != sorted(set(layers)):
            raise RowError(f"layers to check must ascend, each once; got {list(layers)}")
        if wrong := [layer for layer in layers if layer not in self.layers]:
            raise RowError(f"layer {wrong[0]} has no exit predictor; those that have are {self.layers}")

    def chance(self, layer: int, features: Floats) -> float:
        """Of the layer's token to be the final one."""
        index, parts = self.layers.index(layer), self._parts
        inner = np.maximum(parts.first[index] @ features + parts.first_bias[index], 0)
        score = float(inner.astype(np.float64) @ parts.second[index]) + float(parts.second_bias[index])
        return 1 / (1 + float(np.exp(-score)))


@dataclass
class ExitRow:
    """A row on its way: its candidates, and their probabilities at the layer checked before."""

    candidates: Seq[int]
    before: Floats | None = None
    logits: Floats | None = None

    def features(self, logits: Floats) -> Floats:
        """Of a checked layer, for logits of the candidates (k,): (3 k,)."""
        weights = np.exp(logits - logits.max())
        now: Floats = weights / weights.sum()
        change = now - self.before_or_zeros()
        self.saw(logits, now)
        return np.concatenate((logits, now, change))

    def before_or_zeros(self) -> Floats:
        """Probabilities at the layer checked before (k,), zeros at the first."""
        return np.zeros(len(self.candidates), np.float32) if self.before is None else self.before

    def saw(self, logits: Floats, probabilities: Floats) -> None:
        """Logits and probabilities of the candidates (k,) at a checked layer."""
        self.logits, self.before = logits, probabilities

    def choose(self, vocabulary: int, sampling: Sampling, position: int) -> int:
        """The likeliest candidate, with the noise of the position where there is any."""
        scores = np.full(vocabulary, -np.inf, np.float32)
        scores[list(self.candidates)] = self.logits
        return sample(scores, replace(sampling, repetition_penalty=1.0), position)


def behind_row(
    drafter: ReferenceDrafter, column: ReferenceColumn, sequence: ReferenceSequence, slot: int, embed: Embed
) -> Tensor:
    """What the block gives behind the row in ``slot``: (hidden_size,).

    Guesses leave keys and values in the column, and no tokens: cut it when they are not needed any more.
    """
    base = sequence.frontier[-1]
    check_behind(drafter, column, sequence, slot)
    state = catch_up(drafter, column, sequence, base, embed)
    for each in sequence.find(slot).path()[base + 1 :]:
        state = drafter.row(column, each.position, embed(each.token), state)
    return state


def check_behind(
    drafter: ReferenceDrafter, column: ReferenceColumn, sequence: ReferenceSequence, slot: int
) -> None:
    """Raise RowError for a row that the block cannot guess behind."""
    row, base = sequence.row(slot), sequence.frontier[-1]
    if row.position < base or base < 1 or base == sequence.length or sequence.kept < 1:
        raise RowError(
            "a drafter guesses the token after a row of a text whose newest position is not complete, from "
            "states of complete ones: keep() the layers that it reads, and name a row that waits"
        )
    for layer in drafter.layers:
        sequence.kept_state(base - 1, layer)
    if row.position >= column.capacity:
        raise RowError(
            f"a drafter's column of {column.capacity} positions has no room for position {row.position}: "
            "make it as long as the sequence"
        )


def checked_candidates(candidates: npt.ArrayLike, rows: int, config: ModelConfig) -> Ints:
    """Ids (rows, k), if they can be scored. Raises RowError."""
    ids = np.asarray(candidates)
    if ids.ndim != 2 or len(ids) != rows or not 1 <= ids.shape[1] <= MOST_CANDIDATES:
        raise RowError(
            f"candidates of shape {ids.shape} for {rows} rows: allowed is (rows, 1..{MOST_CANDIDATES})"
        )
    if any(len(set(row)) < len(row) for row in ids.tolist()):
        raise RowError("a candidate is given twice for one row; give each token once")
    if ids.size and not 0 <= ids.min() <= ids.max() < config.vocab_size:
        raise RowError(f"a candidate is outside the vocabulary: ids are 0..{config.vocab_size - 1}")
    return ids


def leave(
    backend: Scorer,
    calls: Seq[ExitCall],
    rows: Seq[ExitRow],
    predictors: ReferenceExits,
    *,
    confirm: bool,
) -> tuple[list[Exit], float]:
    """Rows through their layers, those that want the same ones together: see :meth:`.Backend.leave_early`.

    And the seconds that the head took to confirm.
    """
    exits: dict[int, Exit] = {}
    head = 0.0
    begun = [call.sequence.row(call.slot).done for call in calls]
    for layer in sorted({layer for call in calls for layer in call.layers}):
        here = [at for at, call in enumerate(calls) if layer in call.layers and layer >= begun[at]]
        here = [at for at in here if at not in exits]
        if not here:
            continue
        work = _work(calls, here)
        backend.advance(work, layer)
        chances = backend.chances(predictors, layer, work, [rows[at] for at in here])
        willing = [
            (at, chance) for at, chance in zip(here, chances, strict=True) if chance > calls[at].threshold
        ]
        tokens, seconds = _tokens(backend, calls, rows, [at for at, _ in willing], confirm=confirm)
        head += seconds
        for (at, chance), token in zip(willing, tokens, strict=True):
            if token in rows[at].candidates:
                exits[at] = Exit(layer, token, chance)
    staying = [at for at in range(len(calls)) if at not in exits]
    if confirm and staying:
        backend.advance(_work(calls, staying), backend.config.num_layers)
        tokens, seconds = _tokens(backend, calls, rows, staying, confirm=True)
        head += seconds
        last = backend.config.num_layers
        exits |= {at: Exit(last, token, 1.0) for at, token in zip(staying, tokens, strict=True)}
    return [exits.get(at, Exit(0, -1, 0.0)) for at in range(len(calls))], head


def _work(calls: Seq[ExitCall], chosen: Seq[int]) -> list[tuple[SequenceState, list[int]]]:
    return [(calls[at].sequence, [calls[at].slot]) for at in chosen]


def _tokens(
    backend: Scorer, calls: Seq[ExitCall], rows: Seq[ExitRow], chosen: Seq[int], *, confirm: bool
) -> tuple[list[int], float]:
    """Of each chosen row, by the whole head where it has to confirm, else the likeliest candidate.

    And the seconds in the head.
    """
    if confirm:
        begin = time.perf_counter()
        drawn = backend.sample(_work(calls, chosen), [calls[at].sampling for at in chosen])
        return drawn.tolist(), time.perf_counter() - begin
    vocabulary = backend.config.vocab_size
    places = [calls[at].sequence.row(calls[at].slot).position + 1 for at in chosen]
    return [
        rows[at].choose(vocabulary, calls[at].sampling, place)
        for at, place in zip(chosen, places, strict=True)
    ], 0.0
