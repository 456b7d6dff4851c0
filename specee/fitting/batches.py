"""Texts put together for training: of like length, so that little is padded, in an order of their own."""

from __future__ import annotations

import random
from collections.abc import Sequence as Seq
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from specee.fitting.corpus import Text
from specee.fitting.states import Halves

_NEIGHBOURS = 512  # texts that are sorted by length together


@dataclass(frozen=True)
class Batch:
    """Texts padded on the right, from their second position on: the first one has no state before it.

    ``tokens`` (texts, length) and ``before`` (texts, length, layers, hidden), the states of the position
    before each; ``after`` (texts, length, hidden): the last layer's states, whose logits are to be guessed;
    ``right`` (texts, length): the token that follows; ``counts`` (texts, length): where the model wrote it.
    """

    tokens: Tensor
    before: Tensor
    after: Tensor
    right: Tensor
    counts: Tensor


def plan(texts: Seq[Text], most_tokens: int, seed: str) -> list[list[int]]:
    """Indices of the texts of each batch, of ``most_tokens`` at most with padding: the same for a seed."""
    rng = random.Random(f"specee batches {seed}")
    order = list(range(len(texts)))
    rng.shuffle(order)
    batches: list[list[int]] = []
    for begin in range(0, len(order), _NEIGHBOURS):
        current: list[int] = []
        for index in sorted(order[begin : begin + _NEIGHBOURS], key=lambda index: len(texts[index].tokens)):
            if current and len(texts[index].tokens) * (len(current) + 1) > most_tokens:
                batches.append(current)
                current = []
            current.append(index)
        batches.append(current)
    rng.shuffle(batches)
    return batches


def load(texts: Seq[Text], states: Seq[Halves], read: Seq[int]) -> Batch:
    """Of texts of two tokens or more, with their states (tokens, layers, hidden).

    ``read``: which of those layers the drafter reads; the last one is the model's.
    """
    length = max(len(text.tokens) for text in texts) - 1
    shape = len(texts), length
    tokens, right = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    counts = np.zeros(shape, np.bool_)
    places = list(read)
    before = np.zeros((*shape, len(places), states[0].shape[-1]), np.float16)
    after = np.zeros((*shape, states[0].shape[-1]), np.float16)
    for row, (text, own) in enumerate(zip(texts, states, strict=True)):
        size = len(text.tokens) - 1
        tokens[row, :size] = text.tokens[1:]
        right[row, : size - 1] = text.tokens[2:]
        counts[row, max(text.begin - 2, 0) : size - 1] = True
        before[row, :size] = own[:-1, places]
        after[row, :size] = own[1:, -1]
    return Batch(*(torch.from_numpy(array) for array in (tokens, before, after, right, counts)))
