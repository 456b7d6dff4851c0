"""Rows by the engine's loop: each speculates, ends and is judged by itself."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence as Seq
from contextlib import AbstractContextManager
from dataclasses import replace

import numpy as np
import torch
from transformers import StoppingCriteriaList

from specee.backends.protocol import Backend, Floats, Ints
from specee.engine import ActiveSequence, Generation, Request
from specee.integrations.drop_in.accelerated import Accelerated
from specee.integrations.drop_in.call import Call
from specee.integrations.drop_in.result import Result
from specee.integrations.drop_in.scores import Rules
from specee.integrations.drop_in.stops import Ends
from specee.model import Model
from specee.policies import Policy


class _Row:
    """Processors and criteria of one row, called as transformers calls them, and what came of it."""

    def __init__(self, call: Call, rules: Rules, ends: Ends, row: int) -> None:
        width = call.ids.shape[1]
        self.prompt = tuple(call.ids[row, call.pads[row] :].tolist())
        self._text = torch.zeros((1, width + call.budget), dtype=torch.int64)
        self._text[0, :width] = call.ids[row]
        self._width = self._known = width
        self._rules = rules.of_row(row)
        self._ends = StoppingCriteriaList(ends.called)
        self._keeps = call.keeps
        self._shows = call.keeps_scores
        self.scores: list[torch.Tensor] = []
        self.logits: list[torch.Tensor] = []

    def process(self, text: Ints, scores: Floats) -> Floats:
        """A :data:`.Processor`. ``text`` is without padding; transformers' processors see it with."""
        raw = torch.tensor(scores)[None]
        done = self._rules(self._until(text[len(self.prompt) :].tolist()), raw)
        if self._keeps:
            self.logits.append(raw)
            self.scores.append(done)
        array: Floats = done.detach().float().numpy()
        return array[0] if array.shape[:1] == (1,) else array

    def stop(self, generated: Seq[int]) -> bool:
        """A :data:`.Stop`."""
        scores = tuple(self.scores) if self._shows else None
        return bool(self._ends(self._until(generated), scores).all())

    def _until(self, generated: Seq[int]) -> torch.Tensor:
        """The row with its new tokens: (1, tokens). Tokens that were there before are the same."""
        end = self._width + len(generated)
        if end > self._known:
            self._text[0, self._known : end] = torch.tensor(generated[self._known - self._width :])
            self._known = end
        return self._text[:, :end]


def decode_rows(
    owner: Accelerated,
    model: Model,
    call: Call,
    rules: Rules,
    ends: Ends,
    seeds: Seq[int],
    policy: str | Policy,
) -> Result:
    """Continue every row. A streamer, for one row, gets tokens as they are accepted, those of 30 ms together.

    A single row begins with what it has in common with the text that ``owner`` keeps.
    """
    lock = owner.lock
    rows = [_Row(call, rules, ends, index) for index in range(call.rows)]
    requests = [
        Request(
            row.prompt,
            call.budget,
            replace(rules.sampling, seed=seed),
            ends.eos,
            processors=(row.process,) if rules.called or call.keeps else (),
            stops=(row.stop,) if ends.called else (),
        )
        for row, seed in zip(rows, seeds, strict=True)
    ]
    with lock:
        model.check_policy(policy)
        state = owner.kept.take(model, requests[0]) if call.rows == 1 else None
        generation = model.generation(requests, policy, state)
    for step in _steps(generation, lock):
        for token in step[0] if call.streamer is not None else ():
            call.streamer.put(torch.tensor([token]))
    sequences = list(generation.sequences.values())
    tokens = [sequence.generated for sequence in sequences]
    longest = max(map(len, tokens))
    pads = [[call.pad] * (longest - len(own)) for own in tokens]
    for row, sequence, own in zip(rows, sequences, pads, strict=True):
        if own and (call.keeps or call.fills_cache):
            with lock:
                _go_on(row, sequence, own, model.backend, keeps=call.keeps)
    padded = [own + pad for own, pad in zip(tokens, pads, strict=True)]
    return Result(
        torch.tensor(padded),
        [torch.cat(step) for step in zip(*(row.scores for row in rows), strict=True)],
        [torch.cat(step) for step in zip(*(row.logits for row in rows), strict=True)],
        [sequence.state for sequence in sequences],
    )


def _steps(
    generation: Generation, lock: AbstractContextManager[object]
) -> Iterator[dict[int, tuple[int, ...]]]:
    """Step by step, so that other threads have their turn between steps."""
    steps = iter(generation)
    while True:
        with lock:
            step = next(steps, None)
        if step is None:
            return
        yield step


def _go_on(row: _Row, sequence: ActiveSequence, pads: list[int], backend: Backend, *, keeps: bool) -> None:
    """What transformers computes for a row that is over while others go on: padding, and scores after it."""
    state, text = sequence.state, list(sequence.text)
    first = len(text) - 1
    state.rollback(state.length - first)  # the newest row's hidden state may be gone
    state.append([text[-1], *pads])
    work = [(state, range(first, first + len(pads)))]
    backend.advance(work, backend.config.num_layers)
    if keeps:
        for index, logits in enumerate(backend.logits(work)):
            row.process(np.array([*text, *pads[:index]], np.int64), logits)
