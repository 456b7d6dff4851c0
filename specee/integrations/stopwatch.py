"""A streamer that notes when each token came out: the same stopwatch for ours and for transformers."""

from __future__ import annotations

import time
from typing import Any


class Stopwatch:
    """Pass as ``streamer``; then read off the time to the first token and the rate after it.

    The prompt's ids, which come first, are not counted.
    """

    def __init__(self) -> None:
        self.start = time.perf_counter()
        self.tokens: list[int] = []
        self._marks: list[float] = []
        self._prompt_seen = False

    def put(self, value: Any) -> None:
        """The prompt, the first time; then ids of one new token, any shape."""
        if self._prompt_seen:
            self._marks.append(time.perf_counter())
            self.tokens += value.reshape(-1).tolist()
        self._prompt_seen = True

    def end(self) -> None:
        """Nothing to flush."""

    @property
    def first_token_s(self) -> float:
        """Seconds from the start to the first new token: the prompt's processing and one head."""
        return self._marks[0] - self.start

    @property
    def tokens_per_s(self) -> float:
        """Rate of the tokens after the first; 0 if there are none."""
        later = len(self._marks) - 1
        return later / (self._marks[-1] - self._marks[0]) if later > 0 else 0.0
