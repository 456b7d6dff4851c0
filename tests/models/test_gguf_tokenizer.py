"""The tokenizer rebuilt from GGUF metadata gives transformers' ids.

Where transformers' own GGUF route drops something that the published tokenizer has, the published
one is matched, and the test says what is dropped and shows that nothing else differs.
"""

from __future__ import annotations

import json
import re
import unicodedata
from pathlib import Path
from typing import Any

import pytest
import transformers
from tokenizers import normalizers, pre_tokenizers

from specee.errors import CheckpointError, UnsupportedModelError
from specee.models.checkpoint import open_checkpoint
from specee.models.default_model import default_model_path
from specee.models.gguf_header import read_header
from specee.models.gguf_tokenizer import PRE_TOKENIZERS, tokenizer_from_gguf
from specee.models.tokenizer import Tokenizer
from tests.models.corpus import LINES, SPECIAL_LINES, random_lines
from tests.tiny_models import (
    SPECIAL_TOKENS,
    sentencepiece_vocabulary,
    tiny_folder,
    tiny_gguf,
    tiny_tokenizer,
    tokenizer_gguf,
)

CORPUS = [*LINES, *SPECIAL_LINES, *random_lines(seed=1, count=300)]


def byte_level_entries(pre: str) -> dict[str, Any]:
    model = json.loads(tiny_tokenizer().to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    return {
        "model": "gpt2",
        "pre": pre,
        "tokens": tokens,
        "token_type": [3 if token in SPECIAL_TOKENS else 1 for token in tokens],
        "merges": [" ".join(merge) for merge in model["merges"]],
        "bos_token_id": 1,
        "eos_token_id": 2,
        "add_bos_token": False,
    }


def build(path: Path, entries: dict[str, Any]) -> Tokenizer:
    tokenizer = tokenizer_from_gguf(read_header(tokenizer_gguf(path, entries)))
    assert tokenizer is not None
    return tokenizer


def assert_same_ids(ours: Tokenizer, theirs: Any, lines: list[str]) -> None:
    for line in lines:
        ids = theirs(line).input_ids
        assert ours.encode(line) == ids, repr(line)
        assert ours.decode(ids) == theirs.decode(ids, clean_up_tokenization_spaces=False), repr(line)
        assert ours.decode(ids, skip_special_tokens=True) == theirs.decode(
            ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )


def number_split_matters(line: str) -> bool:
    """Whether cutting off every number character first can change the pieces.

    It does where GPT-2's expression would keep the last of several white-space characters with a
    number, or join a number character with a space or another one into a token of the vocabulary.
    """
    foreign = any(unicodedata.category(c).startswith("N") and ord(c) > 127 for c in line)
    return foreign or re.search(r"\s\s\d", line) is not None


@pytest.mark.model
def test_default_model() -> None:
    """SmolLM2 was published with Sequence[Digits(individual_digits=True), ByteLevel(use_regex=True)].

    The file says so with ``pre = smollm``, for which transformers' GGUF route has no entry: it uses
    ByteLevel alone. So: all ids equal once transformers' backend has the published pre-tokenizer;
    without it, equal on every line where splitting off numbers cannot matter, and different
    somewhere else, which is why the route cannot be followed.
    """
    path = default_model_path()
    ours = open_checkpoint(path).tokenizer
    assert ours is not None
    theirs = transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    lines = [*CORPUS, *random_lines(seed=2, count=700)]
    different = [line for line in lines if ours.encode(line) != theirs(line).input_ids]
    assert different
    assert all(number_split_matters(line) for line in different)
    assert sum(number_split_matters(line) for line in lines) < len(lines) / 3
    theirs.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    assert_same_ids(ours, theirs, lines)


@pytest.mark.model
def test_default_vocabulary_was_made_with_single_digits() -> None:
    """The vocabulary itself shows which pre-tokenizer is right: no token joins a digit with anything."""
    tokens = read_header(default_model_path()).metadata["tokenizer.ggml.tokens"]
    assert [token for token in tokens if re.search("[0-9]", token) and len(token) > 1] == []
    assert set("0123456789") <= set(tokens)


@pytest.mark.model
def test_default_model_chat() -> None:
    path = default_model_path()
    ours = open_checkpoint(path).tokenizer
    assert ours is not None
    theirs = transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    messages = [
        {"role": "user", "content": "What is 2 + 2?"},
        {"role": "assistant", "content": "4"},
        {"role": "user", "content": "Sûr?"},
    ]
    text = theirs.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert ours.apply_chat_template(messages, tokenize=False) == text
    assert ours.apply_chat_template(messages).input_ids == theirs(text).input_ids
    assert (ours.bos_token_id, ours.eos_token_id, ours.pad_token_id, ours.vocab_size) == (1, 2, 2, 49152)


def test_gguf_and_folder_have_the_same_tokenizer(tmp_path: Path) -> None:
    from_gguf = open_checkpoint(tiny_gguf("llama", tmp_path / "model.gguf", seed=1)).tokenizer
    from_folder = open_checkpoint(tiny_folder("llama", tmp_path, seed=1)).tokenizer
    assert from_gguf is not None
    assert from_folder is not None
    for line in CORPUS:
        assert from_gguf.encode(line) == from_folder.encode(line), repr(line)
    assert from_gguf.special.bos_token == from_folder.special.bos_token
    assert from_gguf.chat_template == from_folder.chat_template


@pytest.mark.parametrize("pre", ["gpt-2", "default", "llama-bpe", "llama3", "llama-v3", "tekken"])
def test_byte_level(pre: str, tmp_path: Path) -> None:
    ours = build(tmp_path / "model.gguf", byte_level_entries(pre))
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path, gguf_file="model.gguf")
    assert_same_ids(ours, theirs, CORPUS)


def test_qwen2(tmp_path: Path) -> None:
    """Against transformers' Qwen2Tokenizer, which composes Unicode (NFC); its GGUF route does not."""
    entries = byte_level_entries("qwen2")
    ours = build(tmp_path / "model.gguf", entries)
    theirs = transformers.Qwen2Tokenizer(
        vocab={token: index for index, token in enumerate(entries["tokens"])},
        merges=[tuple(merge.split(" ")) for merge in entries["merges"]],
    )
    theirs.add_special_tokens({"additional_special_tokens": list(SPECIAL_TOKENS)})
    assert_same_ids(ours, theirs, CORPUS)


def test_pre_tokenizers_differ(tmp_path: Path) -> None:
    """A check on the corpus: it tells apart splits that differ."""
    text = "  12345  it's\r\n\r\nA/B e\u0301 'S"
    pieces = {}
    for pre in ("gpt-2", "smollm", "llama-bpe", "qwen2", "tekken"):
        backend = build(tmp_path / f"{pre}.gguf", byte_level_entries(pre)).backend
        normalised = backend.normalizer.normalize_str(text) if backend.normalizer else text
        pieces[pre] = tuple(piece for piece, _ in backend.pre_tokenizer.pre_tokenize_str(normalised))
    assert len(set(pieces.values())) == 5


def test_sentencepiece(tmp_path: Path) -> None:
    """Llama 2 and Mistral were published with the space prefix as a normalizer (Prepend, Replace).

    SentencePiece and llama.cpp prefix the same way: always, also before a space and after a special
    token. transformers 5 builds Metaspace(prepend_scheme="first") instead; with the published
    normalizer in its backend all ids are equal, and without it those of every other line.
    """
    ours = build(tmp_path / "model.gguf", sentencepiece_vocabulary())
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path, gguf_file="model.gguf")
    lines = [*CORPUS, "a</s>b", " a </s> b", "<s>"]
    for line in lines:
        if not line.startswith(" ") and "</s>" not in line:
            assert ours.encode(line) == theirs(line).input_ids, repr(line)
    theirs.backend_tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    theirs.backend_tokenizer.pre_tokenizer = None
    assert_same_ids(ours, theirs, lines)
    assert ours.encode("a")[0] == 1, "bos is added unless the file says otherwise"
    assert ours.encode("a", add_special_tokens=False)[0] != 1


def test_sentencepiece_without_prefix(tmp_path: Path) -> None:
    ours = build(tmp_path / "model.gguf", {**sentencepiece_vocabulary(), "add_space_prefix": False})
    for line in LINES:
        assert ours.decode(ours.encode(line), skip_special_tokens=True) == line


@pytest.mark.parametrize(("bos", "eos"), [(True, False), (False, True), (True, True)])
def test_added_ends(bos: bool, eos: bool, tmp_path: Path) -> None:
    entries = {**byte_level_entries("gpt-2"), "add_bos_token": bos, "add_eos_token": eos}
    ours = build(tmp_path / "model.gguf", entries)
    inner = ours.encode("hello", add_special_tokens=False)
    assert ours.encode("hello") == [1] * bos + inner + [2] * eos


def test_user_defined_tokens_stay_whole_and_visible(tmp_path: Path) -> None:
    entries = byte_level_entries("gpt-2")
    entries["token_type"][0] = 4
    ours = build(tmp_path / "model.gguf", entries)
    ids = ours.encode("a<|endoftext|>b<|im_end|>")
    assert 0 in ids
    assert ours.decode(ids, skip_special_tokens=True) == "a<|endoftext|>b"


def test_whole_words(tmp_path: Path) -> None:
    """Llama 3 takes a word of the vocabulary as one token although no merges lead there."""
    entries = {name: byte_level_entries(name) for name in ("llama-bpe", "gpt-2")}
    for name, values in entries.items():
        values["tokens"].append("zebra")
        values["token_type"].append(1)
        ids = build(tmp_path / f"{name}.gguf", values).encode("zebra")
        assert (ids == [300]) == (name == "llama-bpe")


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"pre": "chatglm-bpe"}, UnsupportedModelError, "tokenizer.ggml.pre 'chatglm-bpe' is not supported"),
        ({"model": "t5"}, UnsupportedModelError, "tokenizer.ggml.model 't5' is not supported"),
        ({"bos_token_id": 300}, CheckpointError, "bos_token_id is 300; it must be an id from 0 to 299"),
        ({"merges": ["a b c"]}, CheckpointError, "merge 'a b c' is not a pair"),
        ({"merges": ["a xyz"]}, CheckpointError, "vocabulary and merges do not fit"),
        ({"token_type": [1, 2]}, CheckpointError, "token_type must hold 300 numbers"),
        ({"tokens": ["a", "a"]}, CheckpointError, "must be a list of different strings"),
    ],
)
def test_bad_metadata(changes: dict[str, Any], error: type, words: str, tmp_path: Path) -> None:
    path = tokenizer_gguf(tmp_path / "model.gguf", {**byte_level_entries("gpt-2"), **changes})
    with pytest.raises(error, match=words):
        tokenizer_from_gguf(read_header(path))


def test_no_tokenizer(tmp_path: Path) -> None:
    assert open_checkpoint(tiny_gguf("llama", tmp_path / "m.gguf", seed=1, tokenizer=False)).tokenizer is None


def test_every_listed_pre_tokenizer_builds(tmp_path: Path) -> None:
    for name in PRE_TOKENIZERS:
        ours = build(tmp_path / f"{name}.gguf", byte_level_entries(name))
        assert ours.decode(ours.encode("Hello, world 42!")) == "Hello, world 42!"
