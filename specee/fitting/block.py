"""The second stage: a drafter block, trained on the states of texts."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from collections.abc import Sequence as Seq

import torch
from torch import Tensor

from specee.fitting import batches
from specee.fitting.corpus import Text
from specee.fitting.drafter import Drafter, Shape
from specee.fitting.frozen import Frozen
from specee.fitting.judging import layers_wanted
from specee.fitting.plan import Run
from specee.fitting.states import StoredStates
from specee.fitting.training import Settings, Training

_SAVE_EVERY = 50  # batches
_NOISE = 0.1  # of what a matrix would begin with by chance, beside the identity


def fit_block(
    run: Run, frozen: Frozen, vocabulary: Tensor, texts: Seq[Text], seen: Callable[[Training], None]
) -> Training:
    """A block that drafts ids of ``vocabulary``, begun with the model's last layer.

    Goes on with what is in the work folder; ``seen`` is called at the beginning and after every batch.
    Raises CheckpointError, OSError.
    """
    plan, layers = run.plan, run.layers
    torch.manual_seed(plan.seed)
    order = [
        batch
        for epoch in range(plan.epochs)
        for batch in batches.plan(texts, plan.batch_tokens, f"{plan.seed} {epoch}")
    ]
    training = Training(
        begun(frozen, layers),
        frozen,
        vocabulary,
        len(order),
        Settings(plan.steps, learning_rate=plan.learning_rate),
        f"layers {layers}, {len(vocabulary)} tokens, {len(order)} batches {_digest(order, texts)}",
    )
    path = run.work / f"drafter-{plan.seed}.safetensors"
    if path.exists():
        training.resume(path)
    backend, tokens = run.model.backend, [text.tokens.tolist() for text in texts]
    wanted, read = layers_wanted(layers, run.model.config.num_layers)
    states = StoredStates(backend, tokens, wanted, run.work / "states", run.model.kv_dtype)
    if training.done < training.batches:
        states.compute(lambda done, total: run.tell("states", done, total))

    def batch(index: int) -> batches.Batch:
        chosen = order[index]
        return batches.load([texts[i] for i in chosen], states.of(chosen), read)

    seen(training)  # of a run that was stopped just then
    for done in training.run(batch, _SAVE_EVERY, path):
        run.tell("drafter", done, len(order))
        seen(training)
    states.remove()
    return training


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
