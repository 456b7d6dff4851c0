"""What exit predictors learn from: candidates' scores at every layer, and whether the layer was right.

The labels are SpecEE's: whether the layer's most likely token is the last layer's, both behind the final
norm, which the scores are behind too. (Its released script reads labels off states without the norm.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from collections.abc import Sequence as Seq
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from specee.backends.protocol import Backend, Floats, Ints, SequenceState
from specee.fitting import batches
from specee.fitting.batches import Batch
from specee.fitting.corpus import Text
from specee.fitting.drafter import Drafter
from specee.fitting.frozen import Frozen
from specee.fitting.judging import layers_wanted
from specee.fitting.precision import PRODUCTS, autocast
from specee.fitting.states import halves
from specee.types import KVDtype

Flags = npt.NDArray[np.bool_]

_TOKENS = 1024  # of a batch, whose states of all layers are kept at a time


@dataclass(frozen=True)
class Samples:
    """Of n positions: ``scores`` (n, layers, k) of the candidates, likeliest first, by layers but the last.

    ``right`` (n, layers): whether the layer's token is the final one; ``proposed`` (n, layers): whether it is
    among the candidates.
    """

    scores: Floats
    right: Flags
    proposed: Flags

    def split(self, first: int) -> tuple[Samples, Samples]:
        """The first so many, and the rest."""
        return (
            Samples(self.scores[:first], self.right[:first], self.proposed[:first]),
            Samples(self.scores[first:], self.right[first:], self.proposed[first:]),
        )


class Sampler:
    """Looks at texts of one model; the drafter proposes ``candidates`` tokens of ``vocabulary`` (tokens,)."""

    def __init__(
        self,
        backend: Backend,
        frozen: Frozen,
        drafter: Drafter,
        vocabulary: Tensor,
        candidates: int,
        kv_dtype: KVDtype | None = None,
        tokens: int = _TOKENS,
    ) -> None:
        self._tokens = tokens
        self._backend, self._frozen, self._drafter = backend, frozen, drafter
        self._vocabulary, self._candidates, self._kv_dtype = vocabulary, candidates, kv_dtype
        self._head = frozen.rows(vocabulary).to(PRODUCTS)
        self._layers = range(1, backend.config.num_layers + 1)

    def samples(
        self,
        texts: Seq[Text],
        count: int,
        tell: Callable[[int, int], None] = lambda *_: None,
        over: Callable[[], bool] = lambda: False,
    ) -> Samples:
        """Of ``count`` positions, or of all that the model wrote, unless ``over`` says that it is time.

        ``tell`` hears how many there are of how many. Texts come in an order of their own, so that any part
        of the result is of all kinds.
        """
        found: list[Samples] = []
        have = 0
        for indices in batches.plan(texts, self._tokens, "exits"):
            if have >= count or (have and over()):
                break
            tell(have, count)
            for one in self._look([texts[index] for index in indices]):
                found.append(one)
                have += len(one.right)
        whole = Samples(
            *(
                np.concatenate([getattr(one, name) for one in found])
                for name in ("scores", "right", "proposed")
            )
        )
        return whole.split(count)[0]

    def _look(self, texts: Seq[Text]) -> Iterator[Samples]:
        config = self._backend.config
        wanted, read = layers_wanted(self._drafter.shape.layers, config.num_layers)
        work = [self._begin(text) for text in texts]
        states = np.empty(
            (sum(len(text.tokens) for text in texts), len(wanted), config.hidden_size), np.float32
        )
        for index, layer in enumerate(wanted):
            self._backend.advance(work, layer)
            states[:, index] = self._backend.hidden(work)
        ends = np.cumsum([len(text.tokens) for text in texts])
        batch = batches.load(texts, np.split(halves(states), ends[:-1]), read)
        proposals = self._propose(batch)
        for row, (state, _) in enumerate(work):
            at = np.flatnonzero(batch.counts[row].numpy())  # of the second position and those behind it
            if len(at):
                yield self._of(state, (at + 1).tolist(), proposals[row, at])

    def _begin(self, text: Text) -> tuple[SequenceState, list[int]]:
        state = self._backend.sequence(len(text.tokens), self._kv_dtype)
        state.keep(self._layers, len(text.tokens))
        return state, list(state.append(text.tokens.tolist()))

    @torch.no_grad()
    def _propose(self, batch: Batch) -> Ints:
        """Candidates of the token after each position but the first: (texts, length, k), likeliest first."""
        with autocast():
            embedded = self._frozen.embedding[batch.tokens]
            (output,) = self._drafter(embedded, self._drafter.fused(batch.before.float()), 1)
        logits = functional.linear(
            self._drafter.headed(output, self._frozen.normed).to(PRODUCTS), self._head
        ).float()
        best = logits.topk(self._candidates, dim=-1).indices
        proposals: Ints = self._vocabulary[best].numpy()
        return proposals

    def _of(self, state: SequenceState, slots: list[int], candidates: Ints) -> Samples:
        work = [(state, slots)]
        tokens, _ = self._backend.shadow(work, self._layers)
        scores = self._backend.score(work, self._layers[:-1], candidates)
        right: Flags = tokens[:, :-1] == tokens[:, -1:]
        proposed: Flags = (tokens[:, :-1, None] == candidates[:, None, :]).any(-1)
        return Samples(scores, right, proposed)
