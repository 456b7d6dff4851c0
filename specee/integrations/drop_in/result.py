"""What a loop returns: a tensor, or transformers' output with scores and a cache."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from specee.integrations.drop_in.call import Call

if TYPE_CHECKING:
    import torch

    from specee.backends.protocol import SequenceState


@dataclass(frozen=True)
class Result:
    """Tokens (rows, new) with padding, and for each of them scores and raw logits (rows, vocab_size).

    Of ``states`` all rows are done but the newest token's.
    """

    tokens: torch.Tensor
    scores: Seq[torch.Tensor]
    logits: Seq[torch.Tensor]
    states: Seq[SequenceState]


def finish(call: Call, result: Result, model: Any) -> Any:
    """As :meth:`GenerationMixin._sample` returns it; a cache that somebody will see is filled."""
    import torch
    from transformers.generation import GenerateDecoderOnlyOutput

    sequences = torch.cat([call.ids, result.tokens], dim=1)
    if call.fills_cache:
        fill(call.cache, call.pads, result.states, model)
    if not call.record:
        return sequences
    fields = {field.name for field in dataclasses.fields(GenerateDecoderOnlyOutput)}
    name = "cache" if "cache" in fields else "past_key_values"  # before and since transformers 5.2x
    return GenerateDecoderOnlyOutput(
        sequences=sequences,
        scores=tuple(result.scores) if call.keeps_scores else None,
        logits=tuple(result.logits) if call.keeps_logits else None,
        **{name: call.cache},
    )


def fill(cache: Any, pads: Seq[int], states: Seq[SequenceState], model: Any) -> None:
    """Write keys and values of all positions but the newest into an empty ``DynamicCache``.

    What stands at padding is zero, and is never attended to.
    """
    import torch

    for layer in range(len(states[0].frontier)):
        keys: list[torch.Tensor] = []
        values: list[torch.Tensor] = []
        for pad, state in zip(pads, states, strict=True):
            own = state.kv(layer, range(state.length - 1))
            for rows, array in zip((keys, values), own, strict=True):
                row = torch.from_numpy(array).transpose(0, 1)  # (num_kv_heads, tokens, head_dim)
                rows.append(torch.nn.functional.pad(row, (0, 0, pad, 0)))
        cache.update(torch.stack(keys).to(model.dtype), torch.stack(values).to(model.dtype), layer)
