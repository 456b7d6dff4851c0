"""Traces that no model made: what layers know is laid down, or random."""

from __future__ import annotations

import numpy as np

from specee.policies import Latency
from specee.replay import POSITIONS, Text, Trace

TABLE = Latency((1, 2, 8, 20), (1e-3, 1.1e-3, 1.4e-3, 2e-3), (4e-3, 4.5e-3, 5e-3, 7e-3), 2e-5, 3e-4)
VOCABULARY = 50


def text_of(
    right: np.ndarray, rng: np.random.Generator, prompt: int, confidences: np.ndarray | None = None
) -> Text:
    """``right`` (positions, layers): where each layer agrees with the last one."""
    positions = len(right)
    tokens = rng.integers(0, VOCABULARY, prompt + positions - min(prompt, POSITIONS) + 1).astype(np.int32)
    first = len(tokens) - 1 - positions
    drafts = np.where(right, 0, 1 + rng.integers(0, VOCABULARY - 1, right.shape)) + tokens[first + 1 :, None]
    if confidences is None:
        confidences = np.where(right, 0.9, 0.2)
    return Text(tokens, prompt, (drafts % VOCABULARY).astype(np.int32), confidences.astype(np.float32))


def planted(k: int, *, layers: int = 24, texts: int = 2, tokens: int = 120, seed: int = 1) -> Trace:
    """Layers from ``k`` on are always right, those below it never."""
    rng = np.random.default_rng(seed)
    right = np.arange(1, layers + 1) >= k
    made = [text_of(np.tile(right, (9 + tokens - 1, 1)), rng, 9) for _ in range(texts)]
    return Trace(f"k = {k}", layers, TABLE, tuple(made))


def random_trace(seed: int, *, layers: int = 5, texts: int = 3) -> Trace:
    """Layers that are right more often the deeper they are, of texts that repeat themselves at times."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(texts):
        prompt, tokens = int(rng.integers(1, 60)), int(rng.integers(1, 80))
        shape = min(prompt, POSITIONS) + tokens - 1, layers
        right = rng.random(shape) < np.linspace(0.3, 0.9, layers)
        right[:, -1] = True
        made.append(text_of(right, rng, prompt, rng.random(shape)))
    return Trace("random", layers, TABLE, tuple(made))
