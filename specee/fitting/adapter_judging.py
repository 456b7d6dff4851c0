"""How often an exit layer's token is the full model's, with and without adapters, on texts held out."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Seq

import torch
from torch import Tensor
from torch.nn import functional

from specee.backends.protocol import Backend
from specee.fitting.adapter_samples import Positions, order_of, positions_of
from specee.fitting.adapter_training import AdapterTraining
from specee.fitting.corpus import Text
from specee.fitting.frozen import Frozen
from specee.fitting.precision import PRODUCTS, autocast
from specee.fitting.timetable import Pace
from specee.types import KVDtype

_TOKENS = 512  # of a batch


class AdapterJudge:
    """Of one model; drafts are of ``vocabulary`` (tokens,)."""

    def __init__(
        self, backend: Backend, frozen: Frozen, vocabulary: Tensor, kv_dtype: KVDtype | None = None
    ) -> None:
        self._backend, self._frozen, self._kv_dtype = backend, frozen, kv_dtype
        self._vocabulary, self._head = vocabulary, frozen.head.to(PRODUCTS)
        self._trimmed = self._head if len(vocabulary) == len(self._head) else self._head[vocabulary]

    def agreement(
        self,
        training: AdapterTraining,
        layers: Seq[int],
        texts: Seq[Text],
        count: int,
        tell: Callable[[int, int], None],
        pace: Pace | None = None,
    ) -> list[list[float]]:
        """By layer: with the model's own head, with the trimmed one, and behind the adapter of each width.

        ``count`` positions at most, and as many as ``pace`` leaves time for; at each, whether the most likely
        token is the last layer's.
        """
        order = order_of(texts, count, _TOKENS, 1, 0)
        hits, total = torch.zeros(len(layers), 2 + len(training.widths)), 0
        for done, indices in enumerate(order):
            if done and pace is not None and pace.over():
                break
            tell(done, len(order))
            some = [texts[index] for index in indices]
            positions = positions_of(self._backend, some, layers, self._kv_dtype)
            hits += self._hits(training, positions)
            total += len(positions.last)
        found: list[list[float]] = (hits / max(total, 1)).tolist()
        return found

    @torch.no_grad()
    def _hits(self, training: AdapterTraining, positions: Positions) -> Tensor:
        right = self._best(positions.last, self._head)
        found = []
        for states, adapters in zip(positions.states.unbind(1), training.by_layer(), strict=True):
            tokens = [self._best(states, self._head), self._vocabulary[self._best(states, self._trimmed)]]
            for adapter in adapters:
                with autocast():
                    adapted = adapter(states)
                tokens.append(self._vocabulary[self._best(adapted, self._trimmed)])
            found.append(torch.stack([(each == right).sum() for each in tokens]))
        return torch.stack(found)

    def _best(self, states: Tensor, head: Tensor) -> Tensor:
        return functional.linear(self._frozen.normed(states).to(PRODUCTS), head).argmax(-1)
