"""Hidden states of texts, as the engine computes them: what a drafter reads, and what it is to guess."""

from __future__ import annotations

from collections.abc import Sequence as Seq

import numpy as np
import numpy.typing as npt

from specee.backends.protocol import Backend
from specee.types import KVDtype

Halves = npt.NDArray[np.float16]


def hidden_states(
    backend: Backend, texts: Seq[Seq[int]], layers: Seq[int], kv_dtype: KVDtype | None = None
) -> list[Halves]:
    """States of every position after each of ``layers`` (1..num_layers, ascending).

    For each text (tokens, layers, hidden_size), fp16. All texts go through a layer together.
    """
    work = []
    for text in texts:
        state = backend.sequence(len(text), kv_dtype)
        work.append((state, list(state.append(text))))
    lengths = [len(text) for text in texts]
    found = np.empty((sum(lengths), len(layers), backend.config.hidden_size), np.float16)
    for index, layer in enumerate(layers):
        backend.advance(work, layer)
        found[:, index] = backend.hidden(work)
    return np.split(found, np.cumsum(lengths)[:-1])
