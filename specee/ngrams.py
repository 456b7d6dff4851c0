"""Where each n-gram of a growing text occurred last, and what followed it: drafts without a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence


class NgramIndex:
    """Of one text; the suffix of ``longest`` to ``shortest`` tokens is looked up (prompt lookup).

    A repeated n-gram counts how many times in a row the same token followed; by the rule of succession the
    next time is the same with probability (count + 1) / (count + 2).
    """

    def __init__(self, longest: int, shortest: int) -> None:
        self._lengths = range(longest, shortest - 1, -1)
        self._text: list[int] = []
        self._found: dict[tuple[int, ...], tuple[int, int]] = {}  # n-gram -> where it ends, count

    @property
    def length(self) -> int:
        """Tokens known."""
        return len(self._text)

    def update(self, text: Sequence[int]) -> None:
        """Learn what was added, as :meth:`match` has it."""
        self.match(len(text), text.__getitem__)
        self.grow(text[len(self._text) :])

    def match(self, length: int, token: Callable[[int], int]) -> None:
        """Forget all if a text of ``length`` tokens does not go on from here, by its length or its token."""
        known = len(self._text)
        if known > length or (known and token(known - 1) != self._text[-1]):
            self._text.clear()
            self._found.clear()

    def grow(self, tokens: Sequence[int]) -> None:
        """Learn tokens that were added. The latest n-gram has no successor yet."""
        text = self._text
        for token in tokens:
            end = len(text)
            text.append(token)
            for length in self._lengths:
                if length <= end:
                    gram = tuple(text[end - length : end])
                    before, count = self._found.get(gram, (0, 0))
                    same = before > 0 and text[before] == token
                    self._found[gram] = (end, count + 1 if same else 1)

    def lookup(self, length: int) -> tuple[list[int], float]:
        """Up to ``length`` tokens that may follow the text, and how likely the first one is; none if nothing.

        A copy that reaches the end of the text goes on with what it has copied, as repetition does.
        """
        text = self._text
        for size in self._lengths:
            found = self._found.get(tuple(text[len(text) - size :])) if size <= len(text) else None
            if found is not None:
                begin, count = found
                period = len(text) - begin
                copied = text[begin : begin + length]
                while len(copied) < length:
                    copied.append(copied[len(copied) - period])
                return copied, (count + 1) / (count + 2)
        return [], 0.0
