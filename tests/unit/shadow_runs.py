"""Runs with shadows, and what these should show by a sequence that is computed anew."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from specee.backends.protocol import Backend, DraftHead
from specee.engine import Generation, Request, reserve
from specee.policies import (
    Needs,
    Plan,
)
from tests.unit.runs import Say

PROMPT = (1, 2, 3, 1, 2)


def begun(
    backend: Backend, needs: Needs, *plans: Plan, requests: Sequence[Request] = (), heads: Any = None
) -> tuple[Generation, Say]:
    policy = Say(*plans, needs=needs)
    made = requests or [Request(PROMPT, 12)]
    return Generation(backend, reserve(backend, made), policy, heads), policy


def drafted(
    backend: Backend, text: Sequence[int], layer: int, head: DraftHead | None = None
) -> tuple[int, float]:
    """The most likely token after ``text`` at a layer, and its probability."""
    sequence = backend.sequence(len(text))
    work = [(sequence, [sequence.append(text)[-1]])]
    backend.advance(work, layer)
    logits = backend.logits(work, head)[0].astype(np.float64)
    token = int(logits.argmax())
    return token, float(1 / np.exp(logits - logits[token]).sum())
