"""What exit adapters learn from: states of exit layers, and the last layer's at the same positions."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from specee.backends.protocol import Backend
from specee.fitting import batches
from specee.fitting.corpus import Text
from specee.fitting.judging import layers_wanted
from specee.fitting.states import hidden_states
from specee.types import KVDtype


@dataclass(frozen=True)
class Positions:
    """Where the model wrote the next token: ``states`` (n, layers, hidden) and ``last`` (n, hidden), fp32."""

    states: Tensor
    last: Tensor


def order_of(texts: Seq[Text], count: int, most_tokens: int, epochs: int, seed: int) -> list[list[int]]:
    """Batches of texts, of ``count`` tokens of the model's own, in ``epochs`` rounds of them at most."""
    found: list[list[int]] = []
    have = 0
    for epoch in range(epochs):
        for indices in batches.plan(texts, most_tokens, f"adapters {seed} {epoch}"):
            if have >= count:
                return found
            own = sum(len(texts[index].tokens) - max(texts[index].begin, 1) for index in indices)
            if own > 0:
                found.append(indices)
                have += own
    return found


def positions_of(
    backend: Backend, texts: Seq[Text], layers: Seq[int], kv_dtype: KVDtype | None = None
) -> Positions:
    """Of texts of two tokens or more, one after the other, as the engine computes them."""
    wanted, read = layers_wanted(layers, backend.config.num_layers)
    found = hidden_states(backend, [text.tokens.tolist() for text in texts], wanted, kv_dtype)
    # The state of a position says what follows it.
    own = np.concatenate([each[max(text.begin - 1, 0) : -1] for text, each in zip(texts, found, strict=True)])
    return Positions(torch.from_numpy(own[:, read]).float(), torch.from_numpy(own[:, -1]).float())
