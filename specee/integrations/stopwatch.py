"""A streamer that notes when each token came out: the same stopwatch for every contender."""

from __future__ import annotations

import time
from typing import Any


class Clock:
    """Pass as ``streamer``; reads off time to first token and the rate after it.

    The prompt's ids, which transformers puts first, are not counted.
    """

    def __init__(self) -> None:
        self.start = time.perf_counter()
        self.marks: list[float] = []
        self._prompt_seen = False

    def put(self, value: Any) -> None:
        """One new token (or the prompt, the first time)."""
        if self._prompt_seen:
            self.marks.append(time.perf_counter())
        self._prompt_seen = True

    def end(self) -> None:
        """Nothing to flush."""

    @property
    def first_token_s(self) -> float:
        """Seconds from the call to the first new token: processing of the prompt and one head."""
        return self.marks[0] - self.start

    @property
    def tokens_per_s(self) -> float:
        """Rate of the tokens after the first."""
        return (len(self.marks) - 1) / (self.marks[-1] - self.marks[0])
