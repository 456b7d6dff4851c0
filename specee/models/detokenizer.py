"""Streaming text: token ids in, text out as soon as no later token can change it."""

from __future__ import annotations

from collections.abc import Callable

_REPLACEMENT = "\ufffd"


class IncrementalDecoder:
    """Decodes one token at a time; the pieces together are the text of all tokens.

    A token may hold part of a character, and a decoder may treat the first token differently (drop a
    leading space). So each decoding starts at the last token that gave text, and text that ends in an
    incomplete character waits for the token that completes it.
    """

    def __init__(self, decode: Callable[[list[int]], str]) -> None:
        self._decode = decode
        self._context: list[int] = []
        self._pending: list[int] = []
        self._emitted = 0

    def push(self, token: int) -> str:
        """Add a token; returns the new text, often a word, sometimes nothing."""
        self._pending.append(token)
        text = self._decode(self._context + self._pending)
        certain = text.rstrip(_REPLACEMENT)
        piece = self._take(certain)
        if piece and len(certain) == len(text):
            self._context, self._pending = self._pending, []
            self._emitted = len(self._decode(self._context))
        return piece

    def finish(self) -> str:
        """The text still held back: incomplete characters appear as U+FFFD. Starts anew afterwards."""
        piece = self._take(self._decode(self._context + self._pending)) if self._pending else ""
        self._context, self._pending, self._emitted = [], [], 0
        return piece

    def _take(self, text: str) -> str:
        piece = text[self._emitted :]
        self._emitted = max(self._emitted, len(text))
        return piece
