"""What it costs to leave out keys and values of layers that a token skipped, as SpecEE's released code does.

A whole text at once, in fp32, by the layers of a transformers model: at each layer only tokens that go
through it are seen by those that come later.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from specee.models.checkpoint import Checkpoint

from .perplexity import surprise


class MissingKv:
    """Reads texts with one checkpoint."""

    def __init__(self, checkpoint: Checkpoint, threads: int) -> None:
        import torch

        from specee.integrations.transformers_model import to_transformers

        torch.set_num_threads(threads)
        self._model: Any = to_transformers(checkpoint, checkpoint.natural_weights, "fp32")

    def surprise(self, prompt: Sequence[int], text: Sequence[int], exits: Sequence[int]) -> float:
        """Of ``text`` after ``prompt``, in nats, token i read off after layer ``exits[i]``.

        The prompt goes through all layers.
        """
        import torch

        inner = self._model.model
        ids = torch.tensor([[*prompt, *text[:-1]]])
        depth = torch.full(ids.shape, len(inner.layers))
        depth[0, len(prompt) - 1 :] = torch.tensor(list(exits))
        with torch.inference_mode():
            hidden = inner.embed_tokens(ids)
            positions = torch.arange(ids.shape[1])[None]
            rotation = inner.rotary_emb(hidden, positions)
            for index, layer in enumerate(inner.layers):
                passed = layer(
                    hidden,
                    attention_mask=self._mask(depth[0] > index),
                    position_ids=positions,
                    position_embeddings=rotation,
                )
                passed = passed[0] if isinstance(passed, tuple) else passed
                hidden = torch.where((depth > index)[..., None], passed, hidden)
            logits = self._model.lm_head(inner.norm(hidden[0, len(prompt) - 1 :]))
        return surprise(logits.numpy(), list(text))

    @staticmethod
    def _mask(present: Any) -> Any:
        """Additive, (1, 1, length, length): what came before, as far as it is there, and oneself."""
        import torch

        length = len(present)
        seen = torch.ones(length, length, dtype=torch.bool).tril() & present[None]
        seen |= torch.eye(length, dtype=torch.bool)
        return torch.zeros(length, length).masked_fill(~seen, float(np.finfo(np.float32).min))[None, None]
