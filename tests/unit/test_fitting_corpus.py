"""Texts that a model writes itself: the same in every run, each question once, some held out."""

from __future__ import annotations

from pathlib import Path

import pytest

import specee
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


def test_shards_are_the_same_in_every_run_and_texts_come_once(model: specee.Model, tmp_path: Path) -> None:
    first, second = Corpus(tmp_path / "a", 7, 24), Corpus(tmp_path / "b", 7, 24)
    assert all(first.write_shard(writer(model)) for _ in range(3))
    assert all(second.write_shard(writer(model, width=9)) for _ in range(3))
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
    other.write_shard(writer(model))
    assert as_lists(other.texts()[0]) != fitted[: len(other.texts()[0])]


def test_a_damaged_shard_is_named(model: specee.Model, tmp_path: Path) -> None:
    corpus = Corpus(tmp_path, 0, 8)
    corpus.write_shard(writer(model))
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
    corpus.write_shard(writer(model, width=16))
    fitted, held_out = corpus.texts()
    assert len(fitted) + len(held_out) > 200
    assert len(held_out) > 2


def test_a_shard_that_was_deleted_is_written_again(model: specee.Model, tmp_path: Path) -> None:
    corpus = Corpus(tmp_path, 0, 8)
    for _ in range(3):
        corpus.write_shard(writer(model))
    whole = tuple(map(as_lists, corpus.texts()))
    (tmp_path / "corpus-0-8-00001.npz").unlink()
    assert corpus.shards == 1
    corpus.write_shard(writer(model))
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
