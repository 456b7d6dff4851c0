"""How often a drafter block's tokens are the model's, on texts that it was not fitted on."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Seq

import torch
from torch import Tensor
from torch.nn import functional

from specee.backends.protocol import Backend
from specee.fitting import batches
from specee.fitting.batches import Batch
from specee.fitting.corpus import Text
from specee.fitting.drafter import Drafter
from specee.fitting.frozen import Frozen
from specee.fitting.precision import PRODUCTS, autocast
from specee.fitting.states import hidden_states
from specee.fitting.timetable import Pace
from specee.types import KVDtype

_TOKENS = 2048  # of a batch


def layers_wanted(layers: Seq[int], last: int) -> tuple[list[int], list[int]]:
    """Layers whose states are computed, the last one among them, and the places of ``layers`` in them."""
    wanted = sorted({*layers, last})
    return wanted, [wanted.index(layer) for layer in layers]


class Judge:
    """Of texts of one model; ``backend`` computes their states, in caches of ``kv_dtype``."""

    def __init__(
        self, backend: Backend, frozen: Frozen, texts: Seq[Text], kv_dtype: KVDtype | None = None
    ) -> None:
        self._backend, self._frozen, self._texts, self._kv_dtype = backend, frozen, texts, kv_dtype

    def agreement(
        self,
        drafter: Drafter,
        vocabulary: Tensor,
        steps: int,
        tell: Callable[[int, int], None] = lambda *_: None,
        pace: Pace | None = None,
    ) -> list[float]:
        """By step of a chain: drafts that are the text's next token, of all.

        ``vocabulary`` (tokens,): ids that drafts may have. ``tell`` hears how many batches are done of how
        many, ``pace`` says how long there is time, and is closed.
        """
        wanted, read = layers_wanted(drafter.shape.layers, self._backend.config.num_layers)
        order = batches.plan(self._texts, _TOKENS, "report")
        head = self._frozen.rows(vocabulary).to(PRODUCTS)
        hits, total = torch.zeros(steps), torch.zeros(steps)
        for done, indices in enumerate(order):
            if done and pace is not None and pace.over():
                break
            tell(done, len(order))
            some = [self._texts[index] for index in indices]
            tokens = [text.tokens.tolist() for text in some]
            states = hidden_states(self._backend, tokens, wanted, self._kv_dtype)
            right, made = self._count(drafter, vocabulary, head, batches.load(some, states, read), steps)
            hits += right
            total += made
        else:
            done = len(order)
        if pace is not None:
            pace.close(done, len(order))
        return [float(right / max(made, 1)) for right, made in zip(hits, total, strict=True)]

    @torch.no_grad()
    def _count(
        self, drafter: Drafter, vocabulary: Tensor, head: Tensor, batch: Batch, steps: int
    ) -> tuple[Tensor, Tensor]:
        """By step, drafts that are right, and drafts in all."""
        with autocast():
            outputs = drafter(
                self._frozen.embedding[batch.tokens], drafter.fused(batch.before.float()), steps
            )
        right, made = torch.zeros(steps), torch.zeros(steps)
        for step, output in enumerate(outputs):
            counts = batch.counts.clone()
            counts[:, :step] = False  # there no true state is that far behind
            best = functional.linear(
                drafter.headed(output[counts], self._frozen.normed).to(PRODUCTS), head
            ).argmax(-1)
            right[step] = (vocabulary[best] == batch.right[counts]).sum()
            made[step] = counts.sum()
        return right, made
