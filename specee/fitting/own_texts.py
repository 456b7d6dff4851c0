"""Texts of the user's own to fit on, instead of those that the model writes."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from specee.errors import ConfigurationError
from specee.fitting.corpus import Text
from specee.fitting.turns import fixed_date
from specee.models.tokenizer import Tokenizer

_LONGEST = 512  # tokens: longer texts are cut in pieces
_FORMS = '"text", {"text": "..."} or {"messages": [{"role": "...", "content": "..."}, ...]}'


class Document(NamedTuple):
    """``pieces`` of one text; ``key``: the same for all answers to a question, which stay together."""

    key: int
    pieces: list[Text]


def read_documents(path: Path, tokenizer: Tokenizer) -> list[Document]:
    """Those in a file of JSON lines, each a text, or an object with ``text`` or with chat ``messages``.

    All tokens but the first count as written by the model: what is fitted is its distribution after them.
    None comes twice. Raises ConfigurationError.
    """
    found: dict[str, Document] = {}
    for number, said in _lines(path):
        try:
            ids = _ids(said, tokenizer)
        except ConfigurationError as error:
            raise ConfigurationError(f"corpus {path}, line {number}: {error}") from error
        pieces = [ids[begin : begin + _LONGEST] for begin in range(0, len(ids), _LONGEST)]
        texts = [Text(np.array(piece, np.int32), 1) for piece in pieces]
        found[json.dumps(said, sort_keys=True)] = Document(_key(said), texts)
    if not found:
        raise ConfigurationError(f"corpus {path}: holds no text; give one JSON value a line: {_FORMS}")
    return list(found.values())


def _lines(path: Path) -> Iterator[tuple[int, Any]]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # JSON strings may hold other line ends
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"corpus {path}: cannot be read ({error}); give a file of JSON lines"
        ) from error
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except ValueError as error:
                raise ConfigurationError(
                    f"corpus {path}, line {number}: {line[:60]!r} is no JSON ({error}); allowed are {_FORMS}"
                ) from error


def _ids(said: Any, tokenizer: Tokenizer) -> list[int]:
    if isinstance(said, dict) and _are_messages(said.get("messages")):
        ids = tokenizer.apply_chat_template(
            said["messages"], add_generation_prompt=False, return_dict=False, strftime_now=fixed_date
        )
        return list(ids)
    text = said.get("text") if isinstance(said, dict) else said
    if not isinstance(text, str) or not text:
        raise ConfigurationError(
            f"{json.dumps(said)[:60]} is neither a text nor a chat; allowed are {_FORMS}"
        )
    return tokenizer.encode(text)


def _are_messages(messages: Any) -> bool:
    return isinstance(messages, list) and all(
        isinstance(one, dict) and isinstance(one.get("role"), str) and isinstance(one.get("content"), str)
        for one in messages
    )


def _key(said: Any) -> int:
    """Of a text, or of what a chat's last message answers."""
    chat = said["messages"] if isinstance(said, dict) and "messages" in said else None
    return zlib.crc32(json.dumps(chat[:-1] or chat if chat else said).encode())
