"""Tokens of a policy beside those of plain decoding, added up prompt by prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from . import rounds


def first_difference(plain: Sequence[int], got: Sequence[int]) -> dict[str, int | None] | None:
    """Where ``got`` leaves ``plain``: the position, and either's token there, None past its end."""
    for position in range(max(len(plain), len(got))):
        one = plain[position] if position < len(plain) else None
        other = got[position] if position < len(got) else None
        if one != other:
            return {"position": position, "plain": one, "got": other}
    return None


@dataclass
class Tally:
    """Of the first ``prompts`` of a list.

    ``tokens`` of plain decoding were compared. ``differing`` has the first difference of each prompt that
    has any. Speed is that of ``later`` tokens, those after each first step, in ``seconds``.
    """

    prompts: int = 0
    tokens: int = 0
    differing: list[dict[str, Any]] = field(default_factory=list)
    later: int = 0
    seconds: float = 0.0
    rounds: int = 0
    round_tokens: int = 0
    drafted: int = 0
    accepted: int = 0

    def add(self, chosen: range, plain: Sequence[Sequence[int]], result: Any) -> None:
        """A GenerationResult of prompts ``chosen``; ``plain[index]`` are plain decoding's tokens."""
        for index, got in zip(chosen, result.tokens, strict=True):
            self.tokens += len(plain[index])
            if difference := first_difference(plain[index], got):
                self.differing.append({"prompt": index, **difference})
        found = rounds.of(result.statistics)
        self.prompts += len(chosen)
        self.later += found.tokens
        self.seconds += result.decode_seconds
        self.rounds += found.rounds
        self.round_tokens += found.tokens
        self.drafted += found.drafted
        self.accepted += found.accepted

    def figures(self) -> dict[str, Any]:
        """What is reported; plain decoding drafts nothing, and has no ``acceptance``."""
        return {
            "prompts": self.prompts,
            "tokens": self.tokens,
            "differing": self.differing,
            "decode_tokens_s": self.later / self.seconds if self.seconds else 0.0,
            "rounds": self.rounds,
            "drafted": self.drafted,
            "accepted": self.accepted,
            **({"acceptance": self.accepted / self.drafted} if self.drafted else {}),
            "tokens_per_round": self.round_tokens / self.rounds if self.rounds else 0.0,
        }
