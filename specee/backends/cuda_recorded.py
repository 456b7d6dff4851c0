"""Rounds of the CUDA backend that are recorded for sequences that come again, and kept as long as they do."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from collections.abc import Sequence as Seq
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar, cast

import torch

from specee import env
from specee.backends.cuda_exit_round import ExitShape, ModelExits
from specee.backends.cuda_kept import OfSequences
from specee.backends.cuda_layers import CudaLayers
from specee.backends.cuda_memory import Free, check_room
from specee.backends.cuda_round import ModelRound, Shape
from specee.backends.cuda_weights import CudaWeights
from specee.backends.cuda_workspace import Workspace
from specee.backends.reference_sequence import ReferenceSequence
from specee.cuda.graph import Means
from specee.cuda.launcher import Launcher
from specee.errors import NumericalError, OutOfMemoryError, SpeceeError
from specee.types import ModelConfig

MOST = 6  # rounds that are kept: each has arrays of its own
_SEEN = 16  # latest kinds of round that are known

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

    def make(self, sequences: Seq[ReferenceSequence], shape: Shape) -> ModelRound:
        """A round with arrays of its own. Raises OutOfMemoryError, ConfigurationError."""
        self._check_room(sequences, 0)
        return ModelRound(self.config, self.table, self.layers, sequences, shape, self.device)

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
        return torch.cuda.device(self.device) if self.device.type == "cuda" else nullcontext()


def means_on(device: torch.device, launcher: Launcher) -> Means | None:
    """How rounds get onto ``device``; None for a launcher whose kernels graphs cannot have.

    Raises ConfigurationError for a wrong SPECEE_CUDA_GRAPHS.
    """
    function: Any = getattr(launcher, "function", None)
    if device.type != "cuda" or function is None:
        return None
    return Means(launcher, partial(function, device=device.index or 0), one_by_one=not env.cuda_graphs())


class KeptRounds:
    """Rounds of all kinds, by their sequences and shapes.

    ``reason``: why there are no graphs, None where there are; it may become known with the first round.
    """

    def __init__(self, means: Means | None) -> None:
        self._means = means
        self.reason = "this launcher has no kernels for graphs" if means is None else means.missing()
        self._rounds: OfSequences[object] = OfSequences(MOST)
        self._too_large: OfSequences[bool] = OfSequences(_SEEN)
        self._seen: OrderedDict[tuple[tuple[int, ...], Hashable], None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._rounds)

    def round(
        self, sequences: Seq[ReferenceSequence], shape: Hashable, make: Callable[[Means], R]
    ) -> R | None:
        """What is recorded for them; nothing the first time, since it may be the only one.

        ``make`` is called where there is none. None where it does not fit in memory, and where it fails,
        which is the ``reason`` from then on.
        """
        found = self._rounds.look_up(sequences, shape)
        if found is not None:
            return cast(R, found)
        again = self._comes_again(sequences, shape)
        if not again or self._means is None or self._too_large.look_up(sequences, shape):
            return None
        try:
            made = make(self._means)
        except (OutOfMemoryError, torch.cuda.OutOfMemoryError):
            self.drop()
            self._too_large.remember(sequences, shape, True)
            return None
        except (SpeceeError, RuntimeError) as error:  # the driver's, or torch's own
            self.reason = f"a round could not be made a graph: {error}"
            return None
        self._rounds.remember(sequences, shape, made)
        return made

    def drop(self) -> bool:
        """Give back the memory of all rounds; whether there are any."""
        there = len(self._rounds) > 0
        self._rounds.clear()
        return there

    def _comes_again(self, sequences: Seq[ReferenceSequence], shape: Hashable) -> bool:
        key = (tuple(map(id, sequences)), shape)
        there = key in self._seen
        self._seen[key] = None
        self._seen.move_to_end(key)
        if len(self._seen) > _SEEN:
            self._seen.popitem(last=False)
        return there


def check_tokens(tokens: Seq[int]) -> None:
    """Raise NumericalError where the token of a sequence is none."""
    for at, token in enumerate(tokens):
        if token < 0:
            raise NumericalError(
                f"sequence {at} of {len(tokens)} has a logit that is not a number, or none above minus "
                "infinity: check the weights, or use weights of a wider format"
            )
