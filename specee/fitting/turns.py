"""A chat template taken apart, so that a model can write the user's turn as well as its own."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from specee.errors import ConfigurationError
from specee.models.tokenizer import Tokenizer

_MARK = "\u241f-\u241f"  # no template writes it


class Turns(NamedTuple):
    """Text around the user's words: before them, and from their end to where the answer begins."""

    before: str
    between: str


def fixed_date(pattern: str) -> str:
    """What templates that tell the date are told, so that a run may go on another day."""
    return datetime(2025, 1, 1).strftime(pattern)


def turns_of(tokenizer: Tokenizer) -> Turns:
    """Of the tokenizer's chat template; without one a text is written on from its beginning, in one turn.

    Raises ConfigurationError for a template that does not give the user's words once, as they are.
    """
    if tokenizer.chat_template is None:
        return Turns("", "")
    message = {"role": "user", "content": _MARK}
    text = tokenizer.apply_chat_template([message], tokenize=False, strftime_now=fixed_date)
    parts = text.split(_MARK)
    if len(parts) != 2:
        raise ConfigurationError(
            f"the chat template gives the user's words {len(parts) - 1} times: fitting needs them once, so "
            "that the model can write them itself"
        )
    return Turns(*parts)
