"""What a planted model says, and what an exit of it would: decided on the host, before there are weights.

The next token follows from the newest one alone, along one cycle of all tokens in random order, so a text
repeats nothing before it has had the whole vocabulary. After each *stage* of layers a model has a guess at
it. Guesses get better: what is right after one stage stays right. A guess that is wrong is a *bluff*, another
token with no less confidence, or it is *silent*, in favour of no token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from specee.errors import ConfigurationError

Tokens = npt.NDArray[np.int64]

BLUFFS = 0.5
"""Share of the wrong guesses; the others are silent."""


@dataclass(frozen=True)
class Truth:
    """Of a model with so many tokens and stages, the last of which is all layers.

    ``cycle`` (vocab,): the tokens in the order in which they follow each other. ``guesses`` (stages, vocab):
    of each stage, what it takes to follow each token; those from ``vocab`` on are silent.
    """

    cycle: Tokens
    guesses: Tokens

    @property
    def after(self) -> Tokens:
        """What follows each token, (vocab,): what the whole model says."""
        return self.guesses[-1]

    def text(self, start: int, length: int) -> list[int]:
        """Tokens as they follow each other, from one of the cycle on."""
        return [int(token) for token in np.take(self.cycle, range(start, start + length), mode="wrap")]

    def first_right(self, tokens: Sequence[int]) -> list[int]:
        """Behind each of ``tokens``, the first stage that is right."""
        right: npt.NDArray[np.bool_] = self.guesses == self.after
        return [int(stage) for stage in right[:, list(tokens)].argmax(axis=0)]


def planted_truth(vocab: int, right: Sequence[float], seed: int, bluffs: float = BLUFFS) -> Truth:
    """``right``: the share of tokens that each stage but the last knows what follows, ascending.

    Raises ConfigurationError.
    """
    if not right or list(right) != sorted(right) or not 0 <= right[0] <= right[-1] <= 1:
        raise ConfigurationError(
            f"right={tuple(right)}: allowed are shares from 0 to 1, one or more, ascending"
        )
    rng = np.random.default_rng(seed)
    cycle = rng.permutation(vocab)
    after = np.empty(vocab, np.int64)
    after[cycle] = np.roll(cycle, -1)
    hardness = rng.random(vocab)
    guesses = [np.where(hardness < share, after, _wrong(after, bluffs, rng)) for share in right]
    return Truth(cycle, np.stack([*guesses, after]))


def _wrong(after: Tokens, bluffs: float, rng: np.random.Generator) -> Tokens:
    vocab = len(after)
    others = (after + rng.integers(1, vocab, vocab)) % vocab
    return np.where(rng.random(vocab) < bluffs, others, vocab + np.arange(vocab))
