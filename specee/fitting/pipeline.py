"""From a frozen model to its speculator file: texts, a draft vocabulary, a drafter block.

Every stage leaves its result in the work folder, whole or not at all, so a run that was killed goes on where
it was, and comes to the same file.
"""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Callable, Iterator
from collections.abc import Sequence as Seq
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from specee._version import __version__
from specee.errors import ConfigurationError
from specee.fitting import batches, vocabulary
from specee.fitting.corpus import Corpus, Text
from specee.fitting.drafter import Drafter, Shape
from specee.fitting.frozen import Frozen, read_frozen
from specee.fitting.states import StoredStates
from specee.fitting.training import Settings, Training
from specee.fitting.turns import turns_of
from specee.fitting.vocabulary import Vocabulary
from specee.fitting.writer import Writer
from specee.model import Model
from specee.models.packaged import shape_of
from specee.models.speculator import Speculator, fingerprint, write_speculator
from specee.types import ModelConfig

Tell = Callable[[str, int, int], None]
"""Takes a stage's name, what is done, and what there is to do."""

_STEPS = 3  # of a chain that the report looks at
_REPORT_TOKENS = 2048
_BLOCK_BYTES = 1.0625  # of a weight of a drafter block, in 8-bit blocks with a scale for each 32
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


@dataclass
class Report:
    """What came of it, on texts that were held out.

    ``agreement[i]``: how often the drafter's token after i of its own is the model's, the text so far being
    right. ``coverage``: of the model's tokens by the draft vocabulary's ``vocabulary`` ids.
    """

    tokens: int = 0
    texts: int = 0
    vocabulary: int = 0
    coverage: float = 0.0
    layers: tuple[int, ...] = ()
    losses: list[float] = field(default_factory=list)
    agreement: list[float] = field(default_factory=list)
    seconds: float = 0.0


def fit(model: Model, plan: Plan, output: Path, work: Path, tell: Tell = lambda *_: None) -> Report:
    """Fit what ``plan`` says, and write the speculator file ``output``; ``work`` holds what is in between.

    Raises ConfigurationError, CheckpointError for a damaged file in ``work``, OSError.
    """
    begin = time.monotonic()
    layers = plan.layers or default_layers(model.config)
    corpus = Corpus(work, plan.seed, shard=min(max(plan.tokens // _SHARD_SHARE, _LEAST_SHARD), _MOST_SHARD))
    write_texts(model, corpus, plan.tokens, tell)
    fitted, held_out = texts_of(corpus, plan.tokens)
    chosen = draft_vocabulary(model, fitted, held_out, layers)
    report = Report(
        tokens=sum(len(text.tokens) - text.begin for text in fitted),
        texts=len(fitted),
        vocabulary=len(chosen.ids),
        coverage=chosen.coverage,
        layers=layers,
    )
    training = train(model, plan, layers, chosen, fitted, work, report, tell)
    report.agreement = agreement(StateReader(model, held_out, layers, work), training, held_out, tell)
    report.seconds = time.monotonic() - begin
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
    written = sum(len(text.tokens) - text.begin for text in all_texts(corpus))
    if written >= tokens:
        return
    ends = frozenset(model.checkpoint.eos_token_ids)
    writer = Writer(model.backend, model.tokenizer, turns_of(model.tokenizer), ends, kv_dtype=model.kv_dtype)
    while written < tokens:
        tell("texts", written, tokens)
        added = corpus.write_shard(writer)
        if added == 0:
            raise ConfigurationError(
                "the model writes no text by itself: it ends before it begins. Give texts with --corpus"
            )
        written += added
    tell("texts", tokens, tokens)


def all_texts(corpus: Corpus) -> Iterator[Text]:
    """Those to fit on, and those held out."""
    yield from corpus.texts(held_out=False)
    yield from corpus.texts(held_out=True)


def texts_of(corpus: Corpus, tokens: int) -> tuple[list[Text], list[Text]]:
    """Texts to fit on, up to so many tokens of the model's own, and those held out."""
    fitted: list[Text] = []
    count = 0
    for text in corpus.texts(held_out=False):
        if count < tokens and len(text.tokens) >= _LEAST_TEXT:
            fitted.append(text)
            count += len(text.tokens) - text.begin
    held_out = [text for text in corpus.texts(held_out=True) if len(text.tokens) >= _LEAST_TEXT]
    return fitted, held_out or fitted[-1:]


def draft_vocabulary(model: Model, fitted: Seq[Text], held_out: Seq[Text], layers: Seq[int]) -> Vocabulary:
    """As large as pays on this machine."""
    config = model.config
    weights = sum(parameter.numel() for parameter in Drafter(Shape(config, tuple(layers))).parameters())
    share = _BLOCK_BYTES * weights / model.backend.draft_head(None, None).bytes
    return vocabulary.choose(
        vocabulary.counted(fitted, config.vocab_size),
        vocabulary.counted(held_out, config.vocab_size),
        model.latency.table(),
        config.num_layers,
        share,
    )


def train(
    model: Model,
    plan: Plan,
    layers: tuple[int, ...],
    chosen: Vocabulary,
    texts: Seq[Text],
    work: Path,
    report: Report,
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
    reader = StateReader(model, texts, layers, work)
    if training.done < training.batches:
        reader.states.compute(lambda done, total: tell("states", done, total))
    for done in training.run(lambda index: reader.batch(order[index]), _SAVE_EVERY, path):
        tell("drafter", done, len(order))
    reader.states.remove()
    report.losses = training.losses
    return training


class StateReader:
    """Batches of texts with the states that a drafter reads and guesses."""

    def __init__(self, model: Model, texts: Seq[Text], layers: Seq[int], work: Path) -> None:
        wanted = sorted({*layers, model.config.num_layers})
        self._texts = texts
        self._read = [wanted.index(layer) for layer in layers]
        self.states = StoredStates(
            model.backend, [text.tokens.tolist() for text in texts], wanted, work / "states"
        )

    def batch(self, indices: Seq[int]) -> batches.Batch:
        """Of these texts."""
        return batches.load([self._texts[i] for i in indices], self.states.of(indices), self._read)


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


def agreement(reader: StateReader, training: Training, texts: Seq[Text], tell: Tell) -> list[float]:
    """By step of a chain, over texts that were held out."""
    hits, total = [0] * _STEPS, [0] * _STEPS
    order = batches.plan(texts, _REPORT_TOKENS, "report")
    reader.states.compute(lambda *_: None)
    for done, indices in enumerate(order):
        tell("report", done, len(order))
        found = training.agreement(reader.batch(indices), _STEPS)
        for step, (right, made) in enumerate(zip(*found, strict=True)):
            hits[step] += right
            total[step] += made
    reader.states.remove()
    return [right / max(made, 1) for right, made in zip(hits, total, strict=True)]


def notes(config: ModelConfig, plan: Plan, report: Report) -> dict[str, str]:
    """What a file says of its model and of how it was made."""
    made = {"plan": asdict(plan), "report": asdict(report), "specee": __version__, "torch": torch.__version__}
    return {"shape": shape_of(config), "fit": json.dumps(made)}
