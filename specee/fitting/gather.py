"""The first stage: texts, as many as a plan asks for, and the draft vocabulary that pays for them."""

from __future__ import annotations

import zlib
from collections.abc import Sequence as Seq
from pathlib import Path

from specee.backends.drafter_parts import matrix_bytes, stored_format
from specee.errors import ConfigurationError
from specee.fitting import vocabulary
from specee.fitting.corpus import Corpus, Text, is_held_out
from specee.fitting.own_texts import read_documents
from specee.fitting.plan import Run
from specee.fitting.turns import turns_of
from specee.fitting.vocabulary import Shares, Vocabulary
from specee.fitting.writer import Writer
from specee.models.blocks import row_bytes

_LEAST_SHARD, _MOST_SHARD = 8, 256  # conversations
_MOST_IN_TIME = 64
_EXPECTED = 128  # tokens of a conversation, before there are any
_SHARD_SHARE = 2000  # tokens wished for, for one of them: a run that was stopped has lost a tenth at most
_LEAST_TEXT = 3  # tokens: one to predict from true states
_LEAST_TEXTS = 2
_JUDGED = 30  # tokens to fit on, for one that is held out and looked at


def gather_texts(run: Run) -> tuple[list[Text], list[Text]]:
    """Texts to fit on, and texts held out. Raises CheckpointError, ConfigurationError, OSError."""
    wished = run.plan.tokens
    both = _self_written(run) if run.plan.corpus is None else _of_file(run, Path(run.plan.corpus))
    everything, held_out = ([text for text in kind if len(text.tokens) >= _LEAST_TEXT] for kind in both)
    fitted: list[Text] = []
    count = 0
    for text in everything:
        if count >= wished:
            break
        fitted.append(text)
        count += written([text])
    if len(fitted) + bool(held_out) < _LEAST_TEXTS:
        raise ConfigurationError(
            f"{len(fitted)} texts of {_LEAST_TEXT} tokens or more to fit on: two are needed, one of them to "
            "judge by; give more"
        )
    return fitted, _held_out(held_out, wished // _JUDGED) or [fitted.pop()]


def _held_out(texts: Seq[Text], tokens: int) -> list[Text]:
    """As many as are needed."""
    found: list[Text] = []
    for text in texts:
        if found and written(found) >= tokens:
            break
        found.append(text)
    return found


def _self_written(run: Run) -> tuple[list[Text], list[Text]]:
    shard = min(max(run.plan.tokens // _SHARD_SHARE, _LEAST_SHARD), _MOST_SHARD)
    if run.plan.minutes is not None:  # small ones for a short time: none is left undone
        shard = min(shard, max(int(run.plan.minutes), _LEAST_SHARD), _MOST_IN_TIME)
    corpus = Corpus(run.work, run.plan.seed, shard)
    _write(run, corpus, shard)
    return corpus.texts(run.plan.tokens)


def _of_file(run: Run, path: Path) -> tuple[list[Text], list[Text]]:
    """Each document once, as a whole in one or the other."""
    run.work.mkdir(parents=True, exist_ok=True)
    fitted: list[Text] = []
    held_out: list[Text] = []
    for document in read_documents(path, run.model.tokenizer):
        (held_out if is_held_out(document.key) else fitted).extend(document.pieces)
    return fitted, held_out


def written(texts: Seq[Text]) -> int:
    """Tokens of the model's own."""
    return sum(len(text.tokens) - text.begin for text in texts)


def _write(run: Run, corpus: Corpus, shard: int) -> None:
    """Shards until there are tokens enough, or no time for another one."""
    wished = run.plan.tokens
    if corpus.written() >= wished:
        return
    pace = run.timetable.begin("texts")
    writer = _writer(run, shard)
    begins: list[float] = []
    took = 0.0

    def wanted(begun: int) -> bool:
        """Another shard, if those that are begun will not do."""
        count, shards = corpus.written(), corpus.shards
        each = count / shards if shards else shard * _EXPECTED
        if count + begun * each >= wished or (shards + begun and pace.over(needs=took)):
            return False
        if begun and not took and run.plan.minutes is not None:
            return False  # the first one says how long they take
        begins.append(pace.spent())
        return True

    run.tell("texts", corpus.written(), wished)
    able = True
    while able and corpus.written() < wished:  # again where texts were shorter than was expected
        able = False
        for some in corpus.write(writer, wanted):
            if not some:
                raise ConfigurationError(
                    "the model writes no text by itself: it ends before it begins, and there is nothing to "
                    "fit on"
                )
            able = True
            took = pace.spent() - begins.pop(0)
            run.tell("texts", min(corpus.written(), wished), wished)
    pace.close(min(corpus.written(), wished), wished)


def _writer(run: Run, shard: int) -> Writer:
    """Where time is bounded, for no more texts side by side than a shard has: they all come to their ends."""
    model = run.model
    width = run.limits.width if run.plan.minutes is None else min(run.limits.width, shard)
    ends = frozenset(model.checkpoint.eos_token_ids)
    turns = turns_of(model.tokenizer)
    return Writer(model.backend, model.tokenizer, turns, ends, width=width, kv_dtype=model.kv_dtype)


def draft_vocabulary(run: Run, fitted: Seq[Text], held_out: Seq[Text]) -> Vocabulary:
    """As large as pays on this machine; a run that goes on keeps to what it began with.

    Raises CheckpointError, OSError.
    """
    config, backend = run.model.config, run.model.backend
    often, unseen = (vocabulary.counted(texts, config.vocab_size) for texts in (fitted, held_out))
    path = run.work / f"vocabulary-{run.plan.seed}-{zlib.crc32(often.tobytes()):08x}.npy"
    if path.exists():
        return vocabulary.of_ids(vocabulary.read(path), unseen)
    stored, whole = stored_format(backend.weights), backend.draft_head(None, None).bytes
    block = matrix_bytes(config, len(run.layers), config.intermediate_size, stored)
    shares = Shares(block / whole, row_bytes(stored, config.hidden_size) / whole)
    chosen = vocabulary.choose(often, unseen, run.model.latency.table(), config.num_layers, shares)
    vocabulary.write(path, chosen.ids)
    return chosen
