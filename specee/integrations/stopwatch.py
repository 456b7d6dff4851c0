"""A streamer that notes when each token came out: the same stopwatch for ours and for transformers."""

from __future__ import annotations

import time
from typing import Any


class Stopwatch:
    """Pass as ``streamer``; then read off the time to the first token and the rate after it.

    The prompt's ids, which come first, are not counted. Several tokens may come out at once.
    """

    def __init__(self) -> None:
        self.start = time.perf_counter()
        self.tokens: list[int] = []
        self._marks: list[tuple[float, int]] = []  # when, and how many tokens were out by then
        self._prompt_seen = False

    def put(self, value: Any) -> None:
        """The prompt, the first time; then ids of new tokens, any shape."""
        if self._prompt_seen:
            now = time.perf_counter()
            self.tokens += value.reshape(-1).tolist()
            self._marks.append((now, len(self.tokens)))
        self._prompt_seen = True

    def end(self) -> None:
        """Nothing to flush."""

    @property
    def steps(self) -> int:
        """How many times tokens came out."""
        return len(self._marks)

    @property
    def first_token_s(self) -> float:
        """Seconds from the start to the first new token: the prompt's processing and one head."""
        return self._marks[0][0] - self.start

    @property
    def tokens_per_s(self) -> float:
        """Rate of the tokens after those that came first; 0 if there are none."""
        if len(self._marks) < 2:
            return 0.0
        (begin, first), (end, last) = self._marks[0], self._marks[-1]
        return (last - first) / (end - begin)
