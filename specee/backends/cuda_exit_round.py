"""A round of the CUDA backend in which rows may leave early: arrays, and what a model does in it.

What is recorded is what :class:`CudaLayers` launches for a pass, over arrays that are the round's alone, and
behind checked layers what :class:`CudaHead` launches for its steps, so both have the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from specee.backends.cuda_exits import CudaExits
from specee.backends.cuda_layers import CudaLayers, Run
from specee.backends.cuda_round import Storage
from specee.backends.cuda_weights import CudaWeights
from specee.backends.cuda_workspace import Workspace, cut_inputs
from specee.backends.reference_sequence import ReferenceSequence
from specee.cuda.acceptance import Accepted, Drafts, Draws, Pieces, accept, target_pieces
from specee.cuda.candidates import candidate_logits
from specee.cuda.chances import exit_chances
from specee.cuda.exit_record import EXIT_PLAN, EXIT_RESULT, EXIT_ROWS
from specee.cuda.exit_round import ExitModel
from specee.cuda.exits import ExitState, enter_rows
from specee.cuda.launcher import Launcher
from specee.cuda.products import multiply, norm_rows
from specee.cuda.round import ChainRows, window_begins
from specee.cuda.rows import copy_rows
from specee.cuda.tiles import MAX_LINEAR_ROWS, vocab_splits
from specee.errors import ConfigurationError
from specee.types import ModelConfig


@dataclass(frozen=True)
class ExitShape:
    """What a round has room for: ``rows`` of each sequence, by whose ``predictors``, and ``kept`` layers.

    States of rows are kept after these layers, ascending, none of them the last.
    """

    rows: int
    predictors: CudaExits
    kept: tuple[int, ...] = ()
    WHAT: ClassVar[str] = "a round with early exits"


class ModelExits:
    """Arrays of a round, and what a model does in it.

    ``entering`` (rows, hidden) fp32: states of rows that wait, for whoever plans the round to write.
    ``states`` (1 + kept layers, rows, hidden) fp32: those of rows where they left, then those after each kept
    layer. Raises ConfigurationError for more rows than a pass has.
    """

    def __init__(
        self,
        config: ModelConfig,
        table: CudaWeights,
        layers: CudaLayers,
        sequences: Seq[ReferenceSequence],
        shape: ExitShape,
        device: torch.device,
    ) -> None:
        count, each = len(sequences), shape.rows
        rows = count * each
        if not 1 <= each <= EXIT_ROWS or not 0 < rows <= MAX_LINEAR_ROWS:
            raise ConfigurationError(
                f"{count} sequences with {each} rows each: allowed are 1..{EXIT_ROWS} rows, and "
                f"{MAX_LINEAR_ROWS} of all; give each fewer rows, or make a round of fewer sequences"
            )
        self._config, self._layers, self._shape, self._device = config, layers, shape, device
        self.sequences = [Storage(one.keys, one.values, one.capacity) for one in sequences]
        self.each = each
        self._norm, self._matrix = table.vector("final_norm"), table.matrix(*table.head_key)
        workspace = Workspace(config, device, quantised=not isinstance(table.matrix("q", 0), Tensor))
        workspace.fit(max(one.capacity for one in sequences))
        self._rows = workspace.span(0, rows)
        self._tails = workspace.tails(rows, 1)  # text has none
        spans = [workspace.span(i * each, i * each + each) for i in range(count)]
        self._runs = [Run(*one) for one in zip(self.sequences, spans, strict=True)]
        quantised = not isinstance(self._matrix, Tensor)
        self._normed = cut_inputs(workspace.inputs(config.hidden_size, quantised=quantised), 0, count)
        self.entering = self._floats(rows, config.hidden_size)
        self.states = self._floats(1 + len(shape.kept), rows, config.hidden_size)
        self._newest = torch.arange(each - 1, rows, each, dtype=torch.int32, device=device)
        self._head_arrays(count)
        self.state = self._state(count, rows)

    def model(self) -> ExitModel:
        """For :func:`specee.cuda.exit_round.exit_round`."""
        return ExitModel(
            enter=self._enter,
            join=self._join,
            layer=self._layer,
            norm=self._norm_newest,
            ask=self._ask,
            head=self._head,
            x=self._rows.x,
            left=self.states[0],
            checkable=tuple(layer - 1 for layer in self._shape.predictors.layers),
        )

    def _enter(self, launcher: Launcher) -> None:
        # Paths are those that rows have once they take part.
        self._layers.on(launcher).enter(replace(self._rows, ends=self.state.reach), self._tails)
        self._windows(launcher)

    def _join(self, launcher: Launcher, layer: int) -> None:
        enter_rows(launcher, self.state, self._rows.x, self.entering, layer)
        self._windows(launcher)

    def _windows(self, launcher: Launcher) -> None:
        for window, begins in self._rows.begins.items():
            window_begins(launcher, self._rows.ends, begins, window)

    def _layer(self, launcher: Launcher, layer: int) -> None:
        self._layers.on(launcher).through(layer, self._rows, self._runs)
        if layer + 1 in self._shape.kept:
            copy_rows(launcher, self._rows.x, self.states[1 + self._shape.kept.index(layer + 1)])

    def _norm_newest(self, launcher: Launcher) -> None:
        x, eps = self._rows.x, self._config.norm_eps
        norm_rows(launcher, x, self._norm, self._normed, eps=eps, which=self._newest)

    def _ask(self, launcher: Launcher, layer: int) -> Tensor:
        state = self.state
        candidate_logits(launcher, self._normed, self._matrix, state.candidates, self._few)
        network = self._shape.predictors.network(layer + 1)
        asked = state.asked[layer]
        exit_chances(launcher, network, self._few, state.probabilities, self._chances, asked=asked)
        return self._chances

    def _head(self, launcher: Launcher) -> Tensor:
        multiply(launcher, self._normed, self._matrix, self._logits)
        target_pieces(launcher, self._logits, self.state.draws, self._pieces)
        accept(launcher, self._pieces, self._alone, self._accepted)
        targets: Tensor = self._accepted.targets
        return targets

    def _head_arrays(self, count: int) -> None:
        vocabulary = self._config.vocab_size
        pieces = vocab_splits(vocabulary)
        self._logits = self._floats(count, vocabulary)
        self._few = self._floats(count, self._shape.predictors.candidates)
        self._chances = self._floats(count)
        self._pieces = Pieces(self._ints(count, pieces, dtype=torch.float64), self._ints(count, pieces))
        # A row that is alone has the token to draw as its target.
        none = self._ints(count) - 1
        firsts = torch.arange(count + 1, dtype=torch.int32, device=self._device)
        self._alone = Drafts(none, none, firsts)
        self._accepted = Accepted(*(self._ints(count) for _ in range(4)))

    def _state(self, count: int, rows: int) -> ExitState:
        layers, own = self._config.num_layers, self._rows
        return ExitState(
            plan=self._ints(EXIT_PLAN.itemsize, dtype=torch.uint8),
            result=self._ints(EXIT_RESULT.itemsize, dtype=torch.uint8),
            runs=self._ints(layers),
            checks=self._ints(layers),
            enters=self._ints(layers),
            asked=self._ints(layers, count),
            flags=self._ints(2),
            rows=ChainRows(own.tokens, own.positions, own.lengths, own.ends, own.slots),
            begins=self._ints(rows),
            reach=self._ints(rows),
            draws=Draws(
                self._ints(count, dtype=torch.float64),
                *(self._ints(count, dtype=torch.int64) for _ in range(2)),
            ),
            willing=self._ints(count),
            left=self._ints(count),
            candidates=self._ints(count, self._shape.predictors.candidates),
            probabilities=self._floats(count, self._shape.predictors.candidates),
        )

    def _ints(self, *shape: int, dtype: torch.dtype = torch.int32) -> Tensor:
        return torch.zeros(shape, dtype=dtype, device=self._device)

    def _floats(self, *shape: int) -> Tensor:
        return torch.zeros(shape, device=self._device)
