"""From a frozen model to its speculator file: texts, a draft vocabulary, a drafter block.

Every stage leaves its result in the work folder, whole or not at all, so a run that was killed goes on where
it was, and comes to the same file.
"""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Callable
from collections.abc import Sequence as Seq
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from specee._version import __version__
from specee.backends.drafter_parts import matrix_bytes, stored_format
from specee.errors import ConfigurationError
from specee.fitting import batches, vocabulary
from specee.fitting.corpus import Corpus, Text
from specee.fitting.drafter import Drafter, Shape
from specee.fitting.frozen import Frozen, read_frozen
from specee.fitting.states import StoredStates, hidden_states
from specee.fitting.training import Settings, Training
from specee.fitting.turns import turns_of
from specee.fitting.vocabulary import Vocabulary
from specee.fitting.writer import Writer
from specee.model import Model
from specee.models.blocks import row_bytes
from specee.models.packaged import shape_of
from specee.models.speculator import Speculator, fingerprint, write_speculator
from specee.types import ModelConfig

Tell = Callable[[str, int, int], None]
"""Takes a stage's name, what is done, and what there is to do."""

_STEPS = 3  # of a chain that the report looks at
_REPORT_TOKENS = 2048
_SAVE_EVERY = 50  # batches
_NOISE = 0.1  # of what a matrix would begin with by chance, beside the identity
_LEAST_SHARD, _MOST_SHARD = 8, 256  # conversations
_SHARD_SHARE = 2000  # tokens wished for, for one of them: a run that was stopped has lost a tenth at most
_LEAST_TEXT = 3  # tokens: one to predict from true states


@dataclass(frozen=True)
class Plan:
    """What to fit.

    ``tokens`` the model is to write for it, each of which is trained on ``epochs`` times; ``seed`` of texts
    and of their order; ``layers`` whose states the drafter reads, None for two fifths, two thirds and all of
    the model; ``steps`` unrolled in training; ``batch_tokens`` of a batch at most, padding included.
    """

    tokens: int
    seed: int = 0
    epochs: int = 2
    layers: tuple[int, ...] | None = None
    steps: int = 2
    batch_tokens: int = 1024
    learning_rate: float = 1.5e-3

    def __post_init__(self) -> None:
        for name in ("tokens", "epochs", "steps", "batch_tokens"):
            if (number := getattr(self, name)) < 1:
                raise ConfigurationError(f"{name}={number}: allowed is 1 or more")


@dataclass(frozen=True)
class Report:
    """What came of it, on texts that were held out.

    ``agreement[i]``: how often the drafter's token after i of its own is the model's, the text so far being
    right. ``coverage``: of the model's tokens by the draft vocabulary's ``vocabulary`` ids. ``losses``: of
    the last batch, by unrolled step.
    """

    tokens: int
    texts: int
    vocabulary: int
    coverage: float
    layers: tuple[int, ...]
    losses: list[float]
    agreement: list[float]
    seconds: float


def fit(model: Model, plan: Plan, output: Path, work: Path, tell: Tell = lambda *_: None) -> Report:
    """Fit what ``plan`` says, and write the speculator file ``output``; ``work`` holds what is in between.

    Raises ConfigurationError, CheckpointError for a damaged file in ``work``, OSError.
    """
    begin = time.monotonic()
    layers = plan.layers or default_layers(model.config)
    corpus = Corpus(work, plan.seed, shard=min(max(plan.tokens // _SHARD_SHARE, _LEAST_SHARD), _MOST_SHARD))
    write_texts(model, corpus, plan.tokens, tell)
    fitted, held_out = texts_of(corpus, plan.tokens)
    chosen = draft_vocabulary(model, fitted, held_out, layers, work, plan.seed)
    training = train(model, plan, layers, chosen, fitted, work, tell)
    report = Report(
        tokens=sum(len(text.tokens) - text.begin for text in fitted),
        texts=len(fitted),
        vocabulary=len(chosen.ids),
        coverage=chosen.coverage,
        layers=layers,
        losses=training.losses,
        agreement=agreement(model, training, layers, held_out, tell),
        seconds=time.monotonic() - begin,
    )
    speculator = Speculator(chosen.ids, {}, training.drafter.parts())
    write_speculator(
        output,
        speculator,
        fingerprint(model.config, model.checkpoint.norms()),
        notes(model.config, plan, report),
    )
    return report


def default_layers(config: ModelConfig) -> tuple[int, ...]:
    """An early, a late and the last layer, as EAGLE-3 has it."""
    depth = config.num_layers
    return tuple(sorted({max(1, 2 * depth // 5), max(1, 2 * depth // 3), depth}))


def write_texts(model: Model, corpus: Corpus, tokens: int, tell: Tell) -> None:
    """Shards until there are so many tokens."""
    written = corpus.written()
    if written >= tokens:
        return
    ends = frozenset(model.checkpoint.eos_token_ids)
    writer = Writer(model.backend, model.tokenizer, turns_of(model.tokenizer), ends, kv_dtype=model.kv_dtype)
    while written < tokens:
        tell("texts", written, tokens)
        added = corpus.write_shard(writer)
        if added == 0:
            raise ConfigurationError(
                "the model writes no text by itself: it ends before it begins, and there is nothing to fit on"
            )
        written += added
    tell("texts", tokens, tokens)


def texts_of(corpus: Corpus, tokens: int) -> tuple[list[Text], list[Text]]:
    """Texts to fit on, up to so many tokens of the model's own, and those held out."""
    everything, held_out = (
        [text for text in kind if len(text.tokens) >= _LEAST_TEXT] for kind in corpus.texts()
    )
    fitted: list[Text] = []
    count = 0
    for text in everything:
        if count >= tokens:
            break
        fitted.append(text)
        count += len(text.tokens) - text.begin
    return fitted, held_out or fitted[-1:]


def draft_vocabulary(
    model: Model, fitted: Seq[Text], held_out: Seq[Text], layers: Seq[int], work: Path, seed: int
) -> Vocabulary:
    """As large as pays on this machine; a run that goes on keeps to what it began with."""
    config, stored = model.config, stored_format(model.backend.weights)
    often, unseen = (vocabulary.counted(texts, config.vocab_size) for texts in (fitted, held_out))
    path = work / f"vocabulary-{seed}-{zlib.crc32(often.tobytes()):08x}.npy"
    if path.exists():
        return vocabulary.of_ids(vocabulary.read(path), unseen)
    whole = model.backend.draft_head(None, None).bytes
    block = matrix_bytes(config, len(layers), config.intermediate_size, stored)
    shares = vocabulary.Shares(block / whole, row_bytes(stored, config.hidden_size) / whole)
    chosen = vocabulary.choose(often, unseen, model.latency.table(), config.num_layers, shares)
    vocabulary.write(path, chosen.ids)
    return chosen


def train(
    model: Model,
    plan: Plan,
    layers: tuple[int, ...],
    chosen: Vocabulary,
    texts: Seq[Text],
    work: Path,
    tell: Tell,
) -> Training:
    """A drafter block, begun with the model's last layer; resumes from ``work``."""
    torch.manual_seed(plan.seed)
    frozen = read_frozen(model.checkpoint, model.backend.weights)
    order = [
        batch
        for epoch in range(plan.epochs)
        for batch in batches.plan(texts, plan.batch_tokens, f"{plan.seed} {epoch}")
    ]
    settings = Settings(plan.steps, learning_rate=plan.learning_rate)
    training = Training(
        begun(frozen, layers),
        frozen,
        torch.from_numpy(chosen.ids),
        len(order),
        settings,
        f"layers {layers}, {len(chosen.ids)} tokens, {len(order)} batches {_digest(order)}",
    )
    path = work / f"drafter-{plan.seed}.safetensors"
    if path.exists():
        training.resume(path)
    wanted, read = _layers(model, layers)
    tokens = [text.tokens.tolist() for text in texts]
    states = StoredStates(model.backend, tokens, wanted, work / "states", model.kv_dtype)
    if training.done < training.batches:
        states.compute(lambda done, total: tell("states", done, total))

    def batch(index: int) -> batches.Batch:
        chosen = order[index]
        return batches.load([texts[i] for i in chosen], states.of(chosen), read)

    for done in training.run(batch, _SAVE_EVERY, path):
        tell("drafter", done, len(order))
    states.remove()
    return training


def _layers(model: Model, layers: Seq[int]) -> tuple[list[int], list[int]]:
    """Layers whose states are wanted, the last one among them, and the places of ``layers`` in that list."""
    wanted = sorted({*layers, model.config.num_layers})
    return wanted, [wanted.index(layer) for layer in layers]


def _digest(order: Seq[Seq[int]]) -> str:
    """What batches are of, in a few digits."""
    return f"{zlib.crc32(json.dumps(order).encode()):08x}"


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


def agreement(
    model: Model, training: Training, layers: Seq[int], texts: Seq[Text], tell: Tell
) -> list[float]:
    """By step of a chain, over texts that were held out."""
    hits, total = [0] * _STEPS, [0] * _STEPS
    wanted, read = _layers(model, layers)
    order = batches.plan(texts, _REPORT_TOKENS, "report")
    for done, indices in enumerate(order):
        tell("report", done, len(order))
        some = [texts[index] for index in indices]
        states = hidden_states(model.backend, [text.tokens.tolist() for text in some], wanted, model.kv_dtype)
        found = training.agreement(batches.load(some, states, read), _STEPS)
        for step, (right, made) in enumerate(zip(*found, strict=True)):
            hits[step] += right
            total[step] += made
    return [right / max(made, 1) for right, made in zip(hits, total, strict=True)]


def notes(config: ModelConfig, plan: Plan, report: Report) -> dict[str, str]:
    """What a file says of its model and of how it was made."""
    made = {"plan": asdict(plan), "report": asdict(report), "specee": __version__, "torch": torch.__version__}
    return {"shape": shape_of(config), "fit": json.dumps(made)}
