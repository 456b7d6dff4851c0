"""Texts that a model writes itself: the same in every run, each question once, some held out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import specee
from specee.backends.protocol import Backend, RoundCall, RoundTurn, SequenceState
from specee.errors import CheckpointError, ConfigurationError
from specee.fitting.corpus import Corpus, Text
from specee.fitting.turns import turns_of
from specee.fitting.writer import Wish, Writer
from specee.types import Sampling
from tests.tiny_models import tiny_folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> specee.Model:
    return specee.load(tiny_folder("llama", tmp_path_factory.mktemp("tiny"), seed=3), weights="fp32")


def writer(model: specee.Model, width: int = 4) -> Writer:
    ends = frozenset(model.checkpoint.eos_token_ids) | frozenset(range(2, 40))  # else few come to an end
    return Writer(
        model.backend, model.tokenizer, turns_of(model.tokenizer), ends, width=width, question_tokens=24,
        answer_tokens=16,
    )  # fmt: skip


def write(corpus: Corpus, texts: Writer, shards: int) -> list[bool]:
    """So many more, as they are written."""
    until = corpus.shards + shards
    return list(corpus.write(texts, lambda begun: corpus.shards + begun < until))


def as_lists(texts: list[Text]) -> list[tuple[list[int], int]]:
    return [(text.tokens.tolist(), text.begin) for text in texts]


def test_a_conversation_by_hand(model: specee.Model) -> None:
    turns = turns_of(model.tokenizer)
    assert turns.before.endswith("<|im_start|>user\n")
    assert turns.between == "<|im_end|>\n<|im_start|>assistant\n"
    wish = Wish("Why do", Sampling(1.0, seed=5), Sampling())
    made = next(
        one
        for seed in range(20)
        if (one := writer(model).write([wish._replace(question=Sampling(1.0, seed=seed))])[0]) is not None
    )
    tokens = list(made.tokens)
    before = model.tokenizer.encode(turns.before + "Why do", add_special_tokens=False)
    between = model.tokenizer.encode(turns.between, add_special_tokens=False)
    assert tokens[: made.question] == before
    assert tokens[made.answer - len(between) : made.answer] == between
    answer = model.generate(
        tokens[: made.answer], max_new_tokens=16, eos_token_id=[2, *range(2, 40)], do_sample=False
    )
    assert tokens == answer


def test_what_is_beside_a_conversation_does_not_change_it(model: specee.Model) -> None:
    wishes = [Wish("The", Sampling(1.0, seed=seed), Sampling(0.7, seed=seed)) for seed in range(9)]
    together = writer(model, width=3).write(wishes)
    assert together == [writer(model).write([wish])[0] for wish in wishes]
    assert sum(one is not None for one in together) > 0


class Counted:
    """A backend that tells what was asked of it."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.rooms = 0
        self.together: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def sequence(self, *args: Any, **kwargs: Any) -> SequenceState:
        self.rooms += 1
        return self._backend.sequence(*args, **kwargs)

    def run_rounds(self, calls: Sequence[RoundCall], *args: Any, **kwargs: Any) -> list[RoundTurn]:
        self.together.append(len(calls))
        return self._backend.run_rounds(calls, *args, **kwargs)


def test_texts_under_way_are_as_many_as_there_is_room_for(model: specee.Model, tmp_path: Path) -> None:
    """Also while a shard comes to its end; and rooms are used again, with what they had at the beginning."""
    plain, texts = writer(model, width=5), writer(model, width=5)
    texts._backend = counted = Counted(model.backend)  # type: ignore[assignment]
    seeded = [Wish(str(seed), Sampling(1.0, seed=seed), Sampling(0.7, seed=seed)) for seed in range(40)]
    assert dict(texts.stream(seeded)) == dict(enumerate(plain.write(seeded)))
    assert counted.rooms == 5
    last = next(index for index, count in enumerate(counted.together) if count < 5)
    assert counted.together[:last] == [5] * last
    assert sorted(counted.together[last:], reverse=True) == counted.together[last:]
    counted.together.clear()
    corpus = Corpus(tmp_path, 7, 8)
    assert write(corpus, texts, 4) == [True] * 4
    ending = counted.together.index(next(count for count in counted.together if count < 5))
    assert ending > len(counted.together) // 2
    assert counted.rooms == 10


def test_longer_openings_get_longer_rooms(model: specee.Model) -> None:
    wishes = [
        Wish("The quick brown fox " * length, Sampling(1.0, seed=length), Sampling()) for length in (0, 9, 3)
    ]
    texts = writer(model, width=1)
    texts._backend = counted = Counted(model.backend)  # type: ignore[assignment]
    assert texts.write(wishes) == [writer(model).write([wish])[0] for wish in wishes]
    assert counted.rooms == 2


def test_a_run_that_is_stopped_has_lost_what_was_under_way(model: specee.Model, tmp_path: Path) -> None:
    whole, stopped = Corpus(tmp_path / "a", 7, 8), Corpus(tmp_path / "b", 7, 8)
    write(whole, writer(model), 5)
    for _ in range(2):
        running = stopped.write(writer(model), lambda _: True)
        assert next(running)
        running.close()  # type: ignore[attr-defined]
    while stopped.shards < 5:
        write(stopped, writer(model), 1)
    tokens = whole.written() * 3 // 5
    some = tuple(map(as_lists, whole.texts(tokens)))
    assert some == tuple(map(as_lists, stopped.texts(tokens)))
    everything = tuple(map(as_lists, whole.texts()))
    assert len(some[0]) < len(everything[0]), "shards that nobody needs are left alone"
    assert some == tuple(kind[: len(part)] for kind, part in zip(everything, some, strict=True))


def test_shards_are_the_same_in_every_run_and_texts_come_once(model: specee.Model, tmp_path: Path) -> None:
    first, second = Corpus(tmp_path / "a", 7, 24), Corpus(tmp_path / "b", 7, 24)
    assert write(first, writer(model), 3) == [True] * 3
    assert write(second, writer(model, width=9), 3) == [True] * 3
    written = first.written()
    assert written == second.written() > 100
    fitted, held = map(as_lists, first.texts())
    assert (fitted, held) == tuple(map(as_lists, second.texts()))
    both = [tuple(tokens) for tokens, _ in fitted + held]
    assert len(both) == len(set(both)) > len(fitted) > 20
    # A shard that is there twice has nothing new.
    (tmp_path / "a" / "corpus-7-24-00003.npz").write_bytes(
        (tmp_path / "a" / "corpus-7-24-00000.npz").read_bytes()
    )
    assert as_lists(first.texts()[0]) == fitted
    assert written < first.written() < 2 * written, "what was written counts, as it did when it was written"
    other = Corpus(tmp_path / "c", 8, 24)
    write(other, writer(model), 1)
    assert as_lists(other.texts()[0]) != fitted[: len(other.texts()[0])]


def test_a_damaged_shard_is_named(model: specee.Model, tmp_path: Path) -> None:
    corpus = Corpus(tmp_path, 0, 8)
    write(corpus, writer(model), 1)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(CheckpointError, match=path.name):
        corpus.texts()


def test_models_without_a_template_write_on(model: specee.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model.tokenizer, "chat_template", None)
    wishes = [Wish(opening, Sampling(1.0), Sampling(1.0, seed=2)) for opening in ("", "The quick")]
    alone, opened = writer(model).write(wishes)
    assert alone is not None
    assert opened is not None
    assert alone.tokens[0] == model.tokenizer.bos_token_id
    assert (alone.question, alone.answer) == (1, 1)
    assert list(opened.tokens[: opened.question]) == model.tokenizer.encode("The quick")


def test_texts_without_a_question_are_told_apart_as_a_whole(
    model: specee.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There are a hundred ways to begin, and any number of texts."""
    monkeypatch.setattr(model.tokenizer, "chat_template", None)
    corpus = Corpus(tmp_path, 0, 400)
    write(corpus, writer(model, width=16), 1)
    fitted, held_out = corpus.texts()
    assert len(fitted) + len(held_out) > 200
    assert len(held_out) > 2


def test_a_shard_that_was_deleted_is_written_again(model: specee.Model, tmp_path: Path) -> None:
    corpus = Corpus(tmp_path, 0, 8)
    write(corpus, writer(model), 3)
    whole = tuple(map(as_lists, corpus.texts()))
    (tmp_path / "corpus-0-8-00001.npz").unlink()
    assert corpus.shards == 1
    assert list(corpus.write(writer(model), lambda begun: begun == 0 and corpus.shards == 1)) == [True]
    assert corpus.shards == 3
    assert tuple(map(as_lists, corpus.texts())) == whole


def test_a_template_that_changes_the_words_is_refused(
    model: specee.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        model.tokenizer, "chat_template", "{{ messages[0]['content'] | upper | replace('-', '') }}"
    )
    with pytest.raises(ConfigurationError, match="0 times"):
        turns_of(model.tokenizer)
