"""How often each layer would draft the token of the full model, at every position of generated text.

Not the acceptance of drafts of one token: those come at every other position, and after a wrong one at the
next, so that in a text that repeats itself they gather where they are right.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from specee.replay.record import recording


def agreement(model: Any, texts: Sequence[list[int]], tokens: int) -> dict[int, float]:
    """By layer, over the ``tokens`` that plain decoding continues each text with."""
    found = [text.matches[-text.generated :] for text in recording(model.backend, texts, tokens)]
    return {layer: float(share) for layer, share in enumerate(np.concatenate(found).mean(axis=0), start=1)}
