"""Callbacks as users write them; each notes what it was called with."""

from __future__ import annotations

from typing import Any

import torch
import transformers


class Noting(transformers.LogitsProcessor):
    """Favours a token that depends on the whole prefix of each row."""

    def __init__(self, log: list[Any]) -> None:
        self.log = log

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        self.log.append((input_ids.clone(), scores.clone(), str(scores.dtype)))
        changed = scores.clone()
        favoured = input_ids.sum(dim=1, keepdim=True) % scores.shape[1]
        return changed.scatter_add(1, favoured, torch.full_like(favoured, 3, dtype=scores.dtype))


class InPlace(transformers.LogitsProcessor):
    """Writes into the scores that it is given, as many do."""

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        scores[:, input_ids[0, -1] % scores.shape[1]] = -float("inf")
        return scores


class Neighbours(transformers.LogitsProcessor):
    """Looks from row to row: no row is what it would be by itself."""

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        return scores + 0.5 * scores.roll(1, dims=0)


class Counting(transformers.LogitsProcessor):
    """Remembers from call to call: every third token is forced."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        self.calls += 1
        if self.calls % 3:
            return scores
        forced = torch.full_like(scores, -float("inf"))
        forced[:, 7 + self.calls] = 0.0
        return forced


class Failing(transformers.LogitsProcessor):
    """Raises at a given length."""

    def __init__(self, length: int, error: BaseException) -> None:
        self.length, self.error = length, error

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        if input_ids.shape[1] >= self.length:
            raise self.error
        return scores


class EndAt(transformers.StoppingCriteria):
    """A row is over at one of some tokens; notes every text it sees."""

    def __init__(self, log: list[Any], tokens: list[int]) -> None:
        self.log, self.tokens = log, torch.tensor(tokens)

    def __call__(self, input_ids: torch.LongTensor, scores: Any, **_: Any) -> torch.BoolTensor:
        self.log.append((input_ids.clone(), None if scores is None else len(scores)))
        return torch.isin(input_ids[:, -1], self.tokens)


class EndWhenSure(transformers.StoppingCriteria):
    """Stops by what the newest scores say."""

    def __call__(self, input_ids: torch.LongTensor, scores: Any, **_: Any) -> torch.BoolTensor:
        best = scores[-1].softmax(-1).max(-1).values
        return best > 0.9


class StopAfter(transformers.StoppingCriteria):
    """Ends every row after so many tokens, as a user who has seen enough."""

    def __init__(self, tokens: int) -> None:
        self.left = tokens

    def __call__(self, input_ids: torch.LongTensor, scores: Any, **_: Any) -> torch.BoolTensor:
        self.left -= 1
        return torch.full((len(input_ids),), self.left <= 0)


class Written:
    """A streamer that notes what it gets."""

    def __init__(self, log: list[Any]) -> None:
        self.log = log

    def put(self, value: torch.Tensor) -> None:
        self.log.append(value.clone())

    def end(self) -> None:
        self.log.append("end")
