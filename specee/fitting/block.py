"""The second stage: a drafter block, trained on the states of texts."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from collections.abc import Sequence as Seq
from pathlib import Path

import torch
from torch import Tensor

from specee.fitting import batches, kept_arrays
from specee.fitting.corpus import Text
from specee.fitting.drafter import Drafter, Shape
from specee.fitting.frozen import Frozen
from specee.fitting.judging import layers_wanted
from specee.fitting.plan import Plan, Run
from specee.fitting.states import StoredStates
from specee.fitting.training import Settings, Training

_SAVE_EVERY = 50  # batches
_AGAIN = 0.5  # of the learning rate, for a block that has been trained before
_NOISE = 0.1  # of what a matrix would begin with by chance, beside the identity


def fit_block(
    run: Run,
    frozen: Frozen,
    vocabulary: Tensor,
    texts: Seq[Text],
    seen: Callable[[Training], None],
    start: Drafter | None = None,
) -> Training:
    """A block that drafts ids of ``vocabulary``, begun with ``start``, or with the model's last layer.

    One that has been trained before is unrolled at once, and learns at half the rate at most. Goes on with
    what is in the work folder; ``seen`` is called at the beginning and after every batch. Raises
    CheckpointError, OSError.
    """
    plan, layers = run.plan, run.layers
    torch.manual_seed(plan.seed)
    wanted, read = layers_wanted(layers, run.model.config.num_layers)
    tokens = [text.tokens.tolist() for text in texts]
    folder, kv_dtype = run.work / "states", run.model.kv_dtype
    states = StoredStates(run.model.backend, tokens, wanted, folder, kv_dtype, run.limits.chunk)
    if plan.minutes is not None:
        texts = texts[: _computed(run, states, len(texts))]
    order = [
        batch
        for epoch in range(plan.epochs)
        for batch in batches.plan(texts, run.limits.batch, f"{plan.seed} {epoch}")
    ]
    pace = run.timetable.begin("drafter")
    training = Training(
        start or begun(frozen, layers),
        frozen,
        vocabulary,
        len(order),
        _settings(plan, first=start is None),
        f"layers {layers}, {len(vocabulary)} tokens, {len(order)} batches {_digest(order, texts)}",
        pace,
    )
    path = _path(run, start)
    if path.exists():
        training.resume(path)
    if training.done < training.batches and plan.minutes is None:
        states.compute(lambda done, total: run.tell("states", done, total))

    def batch(index: int) -> batches.Batch:
        chosen = order[index]
        return batches.load([texts[i] for i in chosen], states.of(chosen), read)

    seen(training)  # of a run that was stopped just then
    for done in training.run(batch, _SAVE_EVERY, path):
        run.tell("drafter", done, len(order))
        seen(training)
    pace.close(training.done, training.batches)
    states.remove()
    return training


def _settings(plan: Plan, *, first: bool) -> Settings:
    if first:
        return Settings(plan.steps, learning_rate=plan.learning_rate)
    return Settings(plan.steps, later=0.0, learning_rate=_AGAIN * plan.learning_rate)


def _path(run: Run, start: Drafter | None) -> Path:
    """Of a training from another block, with another bound, or with none, there is another file."""
    begun_from = "" if start is None else f"-{_mark(start)}"
    bound = "" if run.plan.minutes is None else f"-{run.plan.minutes:g}m"
    return run.work / f"drafter-{run.plan.seed}{begun_from}{bound}.safetensors"


def _mark(start: Drafter) -> str:
    """What tells a block from others."""
    return kept_arrays.mark((), [array for _, array in start.parts().arrays()])


def _computed(run: Run, states: StoredStates, texts: int) -> int:
    """Of how many texts there are states, computed while there is time for it."""
    pace = run.timetable.begin("states")
    if pace.number is None:
        able = states.compute(lambda done, total: run.tell("states", done, total), pace)
        pace.close(able, texts, able)
    return pace.number or texts


def _digest(order: Seq[Seq[int]], texts: Seq[Text]) -> str:
    """What batches are of, in a few digits."""
    mark = zlib.crc32(json.dumps(order).encode())
    for text in texts:
        mark = zlib.crc32(text.tokens.tobytes(), mark)
    return f"{mark:08x}"


def begun(frozen: Frozen, layers: tuple[int, ...]) -> Drafter:
    """A block that begins as the model's last layer, on the sum of the last state and the embedding."""
    drafter = Drafter(Shape(frozen.config, layers))
    one = torch.eye(frozen.config.hidden_size)
    with torch.no_grad():
        for role, values in frozen.last.items():
            drafter.get_parameter(f"{role}.weight").copy_(values)
        drafter.fuse.weight.mul_(_NOISE)
        drafter.fuse.weight[:, -len(one) :] += one
        drafter.fc.weight.copy_(torch.cat((one, one), 1) + _NOISE * drafter.fc.weight)
    return drafter
