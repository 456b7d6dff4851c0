"""What is compared: each contender takes prompt ids and produces exactly n tokens, reporting to a clock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import specee
from specee.integrations.stopwatch import Stopwatch
from specee.models.checkpoint import Checkpoint

Run = Callable[[list[int], int, Stopwatch], list[int]]


def ours(source: str | None, weights: str, threads: int) -> Run:
    """specee's C++ backend."""
    model = specee.load(source, weights=weights, backend="cpu", threads=threads)

    def run(prompt: list[int], tokens: int, clock: Stopwatch) -> list[int]:
        output = model.generate(
            [prompt], max_new_tokens=tokens, do_sample=False, eos_token_id=[], streamer=clock
        )
        return [int(token) for token in output[0][len(prompt) :]]

    return run


def transformers_plain(checkpoint: Checkpoint, weights: str, threads: int) -> Run:
    """Stock ``generate`` with its default cache and attention."""
    import torch

    from specee.integrations.transformers_model import to_transformers

    torch.set_num_threads(threads)
    model: Any = to_transformers(checkpoint, "fp32" if weights == "fp32" else "bf16")
    model.generation_config.eos_token_id = None  # every run has the same number of tokens

    def run(prompt: list[int], tokens: int, clock: Stopwatch) -> list[int]:
        ids = torch.tensor([prompt])
        mask = torch.ones_like(ids)
        output = model.generate(
            ids, attention_mask=mask, max_new_tokens=tokens, do_sample=False, streamer=clock
        )
        return [int(token) for token in output[0, len(prompt) :]]

    return run
