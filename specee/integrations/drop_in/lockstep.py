"""Rows one token at a time, all together, as transformers does it: for what may look at several at once."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from contextlib import AbstractContextManager
from dataclasses import replace

import torch

from specee.engine.verify import checked_scores
from specee.integrations.drop_in.call import Call
from specee.integrations.drop_in.result import Result
from specee.model import Model
from specee.sampling import sample
from specee.types import Sampling


def decode_lockstep(
    model: Model, call: Call, seeds: Seq[int], lock: AbstractContextManager[object]
) -> Result:
    """Continue every row without speculation; processors and criteria get (rows, tokens).

    A row's tokens are those that it would be given by itself with the same seed.
    """
    backend, ids = model.backend, call.ids
    rows = [tuple(row[pad:].tolist()) for row, pad in zip(ids, call.pads, strict=True)]
    draw = Sampling(temperature=1.0 if call.sampled else 0.0)
    with lock:
        states = [backend.sequence(len(row) + call.budget, model.kv_dtype) for row in rows]
    for state, row in zip(states, rows, strict=True):
        state.append(row)
    unfinished = torch.ones(call.rows, dtype=torch.bool)
    scores: list[torch.Tensor] = []
    logits: list[torch.Tensor] = []
    for _ in range(call.budget):
        work = [(state, (state.length - 1,)) for state in states]
        with lock:
            backend.advance(work, backend.config.num_layers)
            raw = torch.from_numpy(backend.logits(work).copy())
        processed = call.processors(ids, raw)
        if call.keeps_scores:
            scores.append(processed)
        if call.keeps_logits:
            logits.append(raw)
        tokens = torch.tensor(
            [
                sample(checked_scores(row, backend.config.vocab_size), replace(draw, seed=seed), state.length)
                for row, seed, state in zip(processed.detach().float().numpy(), seeds, states, strict=True)
            ]
        )
        if call.pads_rows:
            tokens[~unfinished] = call.pad
        ids = torch.cat([ids, tokens[:, None]], dim=1)
        for state, token in zip(states, tokens.tolist(), strict=True):
            state.append([token])
        over = call.criteria(ids, tuple(scores) if call.keeps_scores else None)
        if call.streamer is not None:
            call.streamer.put(tokens)
        unfinished &= ~over
        if not unfinished.any():
            break
    return Result(ids[:, call.ids.shape[1] :], scores, logits, states)
