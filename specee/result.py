"""What a generation gave, and how fast."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from specee.engine.statistics import Statistics
from specee.types import FinishReason


@dataclass(frozen=True)
class GenerationResult:
    """Result of ``generate(..., return_dict=True)``.

    ``sequences`` is what ``generate`` returns otherwise: prompts with new tokens, padded, in the kind given.
    ``tokens`` holds the new tokens of each row without padding, ``finish_reasons`` ``"eos"``, ``"stop"`` or
    ``"length"``. ``statistics`` has what was drafted and accepted, round by round, and where the time went.
    ``prompt_seconds`` covers the prompts and each row's first token, ``decode_seconds`` all later ones.
    """

    sequences: Any
    tokens: tuple[tuple[int, ...], ...]
    finish_reasons: tuple[FinishReason, ...]
    prompt_tokens: int
    prompt_seconds: float
    decode_seconds: float
    statistics: Statistics

    @property
    def new_tokens(self) -> int:
        """New tokens of all rows."""
        return sum(map(len, self.tokens))

    @property
    def prompt_tokens_per_second(self) -> float:
        """Prompt tokens of all rows per second."""
        return self.prompt_tokens / self.prompt_seconds if self.prompt_seconds else 0.0

    @property
    def decode_tokens_per_second(self) -> float:
        """New tokens of all rows after the first step, per second."""
        return self.statistics.later_tokens / self.decode_seconds if self.decode_seconds else 0.0
