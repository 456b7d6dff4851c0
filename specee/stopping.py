"""Stop strings: texts that end a generation where they appear, wherever its tokens begin and end."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from collections.abc import Sequence as Seq

_INCOMPLETE = "\ufffd"  # what decoders make of bytes that are no character, or not yet one
_FIRST_TAIL = 8  # tokens


class StopStrings:
    """Whether the latest token completes one of some strings; a pure function of the new tokens.

    A string may begin and end inside tokens and span any number of them, as for transformers'
    ``stop_strings``. ``strings`` are not empty. ``decode`` is the tokenizer's, special tokens kept: a string
    may hold some. A character whose bytes are spread over tokens is there with the last of them.
    """

    def __init__(self, strings: Iterable[str], decode: Callable[[list[int]], str]) -> None:
        self.strings = tuple(strings)
        self._decode = decode
        self._longest = max(map(len, self.strings), default=0)

    def __call__(self, generated: Seq[int]) -> bool:
        """Whether a string ends in what the last token of ``generated`` adds to the text.

        Decodes as many of the last tokens as the longest string may need.
        """
        if not generated or not self.strings:
            return False
        before, text = self._tail(generated)
        return any(text.find(string, max(0, before + 1 - len(string))) >= 0 for string in self.strings)

    def _tail(self, generated: Seq[int]) -> tuple[int, str]:
        """Text of the last tokens, and how many characters of it were there before the latest one."""
        count = _FIRST_TAIL
        while True:
            tail = list(generated[-count:])
            text = self._decode(tail)
            before = _certain(self._decode(tail[:-1])) if tail[1:] else ""
            # Tokens may give no text, so characters count: those that a string may need, and one more, so
            # that all uncertain ones are in the tail. A tail that starts inside a character starts with bytes
            # that are none, and some decoders then give up on all bytes after it.
            enough = len(before) >= self._longest and not text.startswith(_INCOMPLETE)
            if enough or count >= len(generated):
                return len(before), _certain(text)
            count *= 2


def _certain(text: str) -> str:
    """Up to an incomplete character, which later tokens may still complete."""
    return text.rstrip(_INCOMPLETE)
