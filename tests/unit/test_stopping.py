"""Stop strings against a naive version, over decoders with the habits of real ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specee.models.tokenizer import Tokenizer
from specee.stopping import StopStrings
from tests.tiny_models import tiny_folder

PIECES = (
    *(b"", b"a", b"b", b"ab", b"ba b", b" a", b" ", b"\n\n", "é".encode(), "aé€b".encode(), "🙂".encode()),
    *(bytes([byte]) for byte in "é€🙂".encode()),  # parts of characters, to be met in any order
    b"a\xe2\x82",  # ends inside a character
    b"\xacb",  # begins inside one
    b"<|end|>",
)
CHARACTERS = "ab é€🙂\n\ufffd"  # the last one is what bytes that are no character become
Decode = Callable[[list[int]], str]


def byte_level(tokens: list[int]) -> str:
    return b"".join(PIECES[token] for token in tokens).decode("utf-8", "replace")


def dropping_the_first_space(tokens: list[int]) -> str:
    return byte_level(tokens).removeprefix(" ")


def certain(tokens: list[int], decode: Decode) -> str:
    return decode(tokens).rstrip("\ufffd")


def naive(generated: list[int], strings: list[str], decode: Decode) -> bool:
    """All of the text, every place where a string may be."""
    if not generated:
        return False
    text, before = certain(generated, decode), len(certain(generated[:-1], decode))
    return any(
        text[start : start + len(string)] == string and start + len(string) > before
        for string in strings
        for start in range(len(text))
    )


def ids(*pieces: bytes) -> list[int]:
    return [PIECES.index(piece) for piece in pieces]


@pytest.mark.parametrize("decode", [byte_level, dropping_the_first_space])
@given(
    generated=st.lists(st.integers(0, len(PIECES) - 1), max_size=40),
    strings=st.lists(st.text(CHARACTERS, min_size=1, max_size=6), min_size=1, max_size=3),
)
def test_it_agrees_with_the_naive_version(decode: Decode, generated: list[int], strings: list[str]) -> None:
    stop = StopStrings(strings, decode)
    for length in range(len(generated) + 1):
        assert stop(generated[:length]) is naive(generated[:length], strings, decode), generated[:length]


@given(
    generated=st.lists(st.integers(0, len(PIECES) - 1), max_size=40),
    data=st.data(),
    silent=st.integers(0, 30),
)
def test_a_string_of_the_text_is_found_at_the_token_it_ends_in(
    generated: list[int], data: st.DataObject, silent: int
) -> None:
    """Also where many tokens without any text are in it."""
    middle = len(generated) // 2
    generated = [*generated[:middle], *ids(b"") * silent, *generated[middle:]]
    text = certain(generated, byte_level)
    if not text:
        return
    begin = data.draw(st.integers(0, len(text) - 1))
    string = text[begin : data.draw(st.integers(begin + 1, len(text)))]
    stop = StopStrings([string], byte_level)
    lengths = range(1, len(generated) + 1)
    first = next(n for n in lengths if string in certain(generated[:n], byte_level))
    assert next(n for n in lengths if stop(generated[:n])) == first


def test_it_may_end_inside_the_last_token_and_span_several() -> None:
    stop = StopStrings(["bab"], byte_level)
    assert stop(ids(b"b", b"", b"ab"))
    assert stop(ids(b"ab", b"ab"))
    assert not stop(ids(b"ab", b"a"))
    assert not stop(ids(b"ab", b"ab", b"a"))  # it was there before


def test_what_is_there_before_the_last_token_does_not_stop_it() -> None:
    stop = StopStrings(["ab"], byte_level)
    assert stop(ids(b"ab"))
    assert not stop(ids(b"ab", b""))
    assert not stop(ids(b"ab", b" "))
    assert stop(ids(b"ab", b" ", b"a", b"b"))


def test_a_character_is_there_with_its_last_byte() -> None:
    stop, parts = StopStrings(["€"], byte_level), "€".encode()
    euro = ids(*(bytes([byte]) for byte in parts))
    assert [stop(euro[:n]) for n in (1, 2, 3)] == [False, False, True]
    assert StopStrings(["a€b"], byte_level)(ids(b"a\xe2\x82", b"\xacb"))


@pytest.mark.parametrize("silent", range(10))
def test_a_character_is_whole_wherever_decoding_begins(silent: int) -> None:
    face = ids(*(bytes([byte]) for byte in "🙂".encode()))
    assert StopStrings(["🙂 a"], byte_level)([*face, *ids(b"") * silent, *ids(b" ", b"a")])


def test_an_incomplete_character_behind_it_does_not_hide_it() -> None:
    assert StopStrings(["a"], byte_level)(ids(b"b", b"a\xe2\x82"))


def test_special_tokens_count() -> None:
    assert StopStrings(["<|end|>"], byte_level)(ids(b"a", b"<|end|>"))


def test_nothing_stops_nothing() -> None:
    assert not StopStrings([], byte_level)(ids(b"a"))
    assert not StopStrings(["a"], byte_level)([])


def test_only_the_end_of_a_long_text_is_decoded() -> None:
    lengths: list[int] = []

    def counting(tokens: list[int]) -> str:
        lengths.append(len(tokens))
        return byte_level(tokens)

    stop = StopStrings(["a" * 20], counting)
    assert not stop(ids(b"b") * 2000)
    assert max(lengths) <= 40
    assert stop(ids(b"b") * 2000 + ids(b"a") * 20)
    assert max(lengths) <= 40


def test_bytes_that_are_given_up_on_together() -> None:
    """A decoder with byte fallback: bytes beside each other are all text, or none is."""

    def fallback(tokens: list[int]) -> str:
        try:
            return bytes(tokens).decode()
        except UnicodeDecodeError:
            return "\ufffd" * len(tokens)

    generated = list(("🙂€" * 20 + "€").encode())
    stop = StopStrings(["€€"], fallback)
    assert [n for n in range(len(generated) + 1) if stop(generated[:n])] == [len(generated)]
    assert not StopStrings(["🙂🙂"], fallback)(generated)


TEXT = "The quick brown fox jumps over the lazy dog.\n\nIn 1969 there were 12 ways to say it isn't so; over."


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder("llama", tmp_path_factory.mktemp("model"), seed=1)


@pytest.mark.parametrize("strings", [["over"], ["\n\n"], ["x j", "99"], ["t", "dog.\n"], ["nowhere"]])
def test_it_stops_where_transformers_stops(folder: Path, strings: list[str]) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    theirs_tokens = transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    theirs = transformers.StopStringCriteria(theirs_tokens, strings)
    tokenizer = Tokenizer.from_folder(folder)
    ours = StopStrings(strings, tokenizer.decode)
    tokens = tokenizer.encode(TEXT)
    found = [ours(tokens[:n]) for n in range(1, len(tokens) + 1)]
    assert found == [bool(theirs(torch.tensor([tokens[:n]]), None)) for n in range(1, len(tokens) + 1)]
    assert any(found) is any(string in TEXT for string in strings)
