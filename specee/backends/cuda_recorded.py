"""Rounds of the CUDA backend that are recorded for sequences that come again, and kept as long as they do."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Seq
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from specee import env
from specee.backends.cuda_block_round import longest_unseen
from specee.backends.cuda_exit_round import ExitShape, ModelExits
from specee.backends.cuda_kept import OfSequences
from specee.backends.cuda_layers import CudaLayers
from specee.backends.cuda_memory import Free, check_room, current, is_out_of_memory
from specee.backends.cuda_repeats import Graphs
from specee.backends.cuda_round import DraftParts, ModelRound, Shape
from specee.backends.cuda_weights import CudaWeights
from specee.backends.cuda_workspace import Workspace
from specee.backends.reference_sequence import ReferenceSequence
from specee.cuda.graph import Means
from specee.cuda.launcher import Launcher
from specee.errors import NumericalError, OutOfMemoryError, SpeceeError
from specee.types import ModelConfig

# Rounds have arrays of their own: how many sets of sequences keep some, and how many of each. Those of some
# texts differ in rows that wait and in drafts that there is room for, which come in turn.
SETS, SHAPES = 6, 10
_SEEN = 64  # latest sets of sequences of which is known what has come once

R = TypeVar("R")


@dataclass(frozen=True)
class Parts:
    """What rounds are made of; not the backend itself, which would keep itself alive by them."""

    config: ModelConfig
    table: CudaWeights
    layers: CudaLayers
    workspace: Workspace
    free: Free
    device: torch.device

    def make(self, sequences: Seq[ReferenceSequence], shape: Shape, drafting: DraftParts) -> ModelRound:
        """A round with arrays of its own. Raises OutOfMemoryError, ConfigurationError."""
        rows = (shape.drafts + 1) * len(sequences)
        more = 4 * len(shape.kept) * rows * self.config.hidden_size
        if drafting.block is not None:
            block, longest = drafting.block.drafter.block, max(one.capacity for one in drafting.block.columns)
            texts = longest_unseen(len(sequences), shape.drafts) * len(sequences)
            more += block.text_bytes(texts) + block.new_bytes(len(sequences), longest)
        self._check_room(sequences, more)
        return ModelRound(self.config, self.table, self.layers, sequences, shape, self.device, drafting)

    def make_exits(self, sequences: Seq[ReferenceSequence], shape: ExitShape) -> ModelExits:
        """The same for rows that may leave early."""
        states = (2 + len(shape.kept)) * shape.rows * len(sequences)
        self._check_room(sequences, 4 * states * self.config.hidden_size)
        return ModelExits(self.config, self.table, self.layers, sequences, shape, self.device)

    def _check_room(self, sequences: Seq[ReferenceSequence], more: int) -> None:
        check_room(
            self.free,
            self.workspace.bytes_of_another(max(one.capacity for one in sequences)) + more,
            f"arrays of a round of {len(sequences)} sequences",
            "ask for a shorter context",
        )

    def bytes_read(self) -> tuple[float, float]:
        """Of one layer, and of the head."""
        head = self.table.head_bytes
        return (self.table.weight_bytes - head) / self.config.num_layers, head

    def current(self) -> AbstractContextManager[Any]:
        """The device is torch's current one inside."""
        return current(self.device)


def means_on(device: torch.device, launcher: Launcher) -> Means | None:
    """How rounds get onto ``device``; None for a launcher whose kernels graphs cannot have.

    Raises ConfigurationError for a wrong SPECEE_CUDA_GRAPHS.
    """
    function: Any = getattr(launcher, "function", None)
    if device.type != "cuda" or function is None:
        return None
    return Means(launcher, partial(function, device=device.index or 0), one_by_one=not env.cuda_graphs())


class KeptRounds:
    """Rounds of all kinds, by shapes and what they are of: sequences, a block's columns, a head.

    What is kept of any of these goes with it.
    """

    def __init__(self, means: Means | None, graphs: Graphs) -> None:
        self._means, self._graphs = means, graphs
        self._missing = "this launcher has no kernels for graphs" if means is None else means.missing()
        self.failed: dict[type, str] = {}  # by kind of shape: why there are no such rounds
        self._rounds: OfSequences[object] = OfSequences(SETS, SHAPES)
        self._too_large: OfSequences[bool] = OfSequences(_SEEN, SHAPES)
        self._seen: OfSequences[bool] = OfSequences(_SEEN, SHAPES)

    def __len__(self) -> int:
        return len(self._rounds)

    def reason(self, kind: type[Shape | ExitShape]) -> str | None:
        """Why there are no graphs of rounds with that kind of shape, None where there are.

        It may become known with the first one; other kinds go on then.
        """
        return self._missing or self.failed.get(kind)

    def reasons(self) -> str | None:
        """Why there are no graphs of some kind, None where there are of all."""
        return self._missing or "; ".join(self.failed.values()) or None

    def round(
        self,
        sequences: Seq[ReferenceSequence],
        shape: Shape | ExitShape,
        make: Callable[[Means], R],
        others: Seq[object] = (),
    ) -> R | None:
        """What is recorded for them; nothing the first time, since it may be the only one.

        ``make`` is called where there is none. None where it does not fit in memory, and where it fails,
        which is the ``reason`` from then on. One that others took the place of has to come twice again: where
        more come in turn than there are places, most go step by step, and none is made for a single launch.
        """
        found = self._rounds.look_up(sequences, shape, others=others)
        if found is not None:
            return cast(R, found)
        if self._means is None or self._too_large.look_up(sequences, shape, others=others):
            return None
        if not self._seen.take_out(sequences, shape, others):
            self._seen.remember(sequences, shape, True, others)
            return None
        try:
            made = make(self._means)
        except (SpeceeError, RuntimeError) as error:  # the driver's, or torch's own
            if is_out_of_memory(error):
                self.drop()  # what was short may be short for texts too
                self._too_large.remember(sequences, shape, True, others)
            else:
                self.failed[type(shape)] = f"{shape.WHAT} could not be made a graph: {error}"
            return None
        self._rounds.remember(sequences, shape, made, others)
        return made

    def copies(self, states: Tensor, rows: Seq[range]) -> list[Tensor]:
        """Of ``states`` (layers, rows, hidden) the neighbours of each range: (layers, some rows, hidden).

        A copy of more rows would live as long as any of them. Rounds and other graphs make way for them;
        raises OutOfMemoryError where that is not enough.
        """
        found: list[Tensor] | None = None
        while found is None:
            try:
                found = [states[:, own.start : own.stop].clone() for own in rows]
            except torch.cuda.OutOfMemoryError as error:
                if not any([self.drop(), self._graphs.drop()]):
                    raise OutOfMemoryError(
                        f"hidden states of {sum(map(len, rows))} rows after {len(states)} layers do not fit "
                        f"in memory ({error}); keep fewer layers, or free memory"
                    ) from error
        if states.device.type == "cuda" and len(states):
            # The next launch writes over the originals, and the next call may come on another stream.
            torch.cuda.current_stream(states.device).synchronize()
        return found

    def drop(self) -> bool:
        """Give back the memory of all rounds; whether there are any."""
        there = len(self._rounds) > 0
        self._rounds.clear()
        return there


def check_tokens(tokens: Seq[int]) -> None:
    """Raise NumericalError where the token of a sequence is none."""
    for at, token in enumerate(tokens):
        if token < 0:
            raise NumericalError(
                f"sequence {at} of {len(tokens)} has a logit that is not a number, or none above minus "
                "infinity: check the weights, or use weights of a wider format"
            )
