"""Which drafts stay: walking a tree of drafts with the full model's tokens, and the rules that give those.

``coupled`` (the default): the full model's token at a position is drawn with noise that depends on seed,
position and token alone, so it is the token of plain decoding, drafts or no drafts. A draft stays when it
is that token. Greedy is the same rule without noise.

``rejection``: a draft x, drawn from q, stays with probability min(1, p(x) / q(x)), else the token is drawn
from the normalised positive part of p - q. The tokens are distributed as the full model's p, but which ones
come out depends on the drafts. (Leviathan et al., "Fast inference from transformers via speculative
decoding", ICML 2023; Chen et al., "Accelerating large language model decoding with speculative sampling",
2023; several drafts at one position as in Miao et al., "SpecInfer", 2024)
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Seq
from typing import Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from specee.sampling import gumbel, kept, uniforms
from specee.types import FinishReason, Sampling

Acceptance = Literal["coupled", "rejection"]
Doubles = npt.NDArray[np.float64]

# Streams of noise beside 0, which draws coupled tokens and their drafts: each is independent of the others.
ACCEPT_STREAM, RESIDUAL_STREAM, FIRST_DRAFT_STREAM = 1, 2, 3


class Tree(Protocol):
    """What is walked; node 0 is the newest committed row."""

    def child(self, node: int, token: int) -> int | None:
        """The child of ``node`` with that token."""


class Walk(NamedTuple):
    """``tokens`` to emit, and the accepted nodes on the way, one for each of the first tokens.

    ``end`` is what the walk's ``ended`` said of the last token. ``exits``: see :class:`.Round`.
    """

    tokens: tuple[int, ...]
    path: tuple[int, ...]
    end: FinishReason | None
    exits: tuple[int, ...] = ()


def walk(
    tree: Tree,
    target: Callable[[int], int],
    ended: Callable[[list[int]], FinishReason | None],
) -> Walk:
    """Follow the full model's tokens down the tree until no draft matches, or the text ends.

    ``target(node)`` is the full model's token after ``node``; asked once for each token emitted, in order,
    and never beyond the end. ``ended(tokens)`` says why the text is over after these, or None.
    """
    node = 0
    tokens: list[int] = []
    path: list[int] = []
    while True:
        token = target(node)
        tokens.append(token)
        end = ended(tokens)
        child = tree.child(node, token)
        if child is not None:
            path.append(child)
        if child is None or end is not None:
            return Walk(tuple(tokens), tuple(path), end)
        node = child


def probabilities(scores: npt.ArrayLike, sampling: Sampling) -> Doubles:
    """What ``sampling`` draws from, given scores (vocab_size,) after penalties: (vocab_size,), sums to 1."""
    dense = np.zeros(len(np.asarray(scores)), np.float64)
    if sampling.temperature == 0:
        dense[int(np.argmax(np.asarray(scores)))] = 1.0
        return dense
    ids, values = kept(scores, sampling)
    weights = np.exp(values - values.max())
    dense[ids] = weights / weights.sum()
    return dense


def rejection_token(
    target: Doubles, drafts: Seq[tuple[int, Doubles | None]], seed: int, position: int
) -> int:
    """The token at ``position`` under classical rejection sampling.

    ``target``: the full model's probabilities (vocab_size,). ``drafts``: tokens drafted there in order,
    each with the probabilities it was drawn from, None for a choice without chance. Those of a later draft
    are conditional on the earlier ones: drawn without replacement, they are zero at earlier tokens, and add
    up to 1.
    """
    left = target
    for index, (token, drawn_from) in enumerate(drafts):
        # One number a draft: ids of this stream count drafts, not tokens.
        chance = float(uniforms(seed, position, [index], ACCEPT_STREAM)[0])
        made = 1.0 if drawn_from is None else float(drawn_from[token])
        if chance * made < left[token]:
            return token
        left = left.copy() if drawn_from is None else np.maximum(left - drawn_from, 0.0)
        if drawn_from is None:
            left[token] = 0.0
        total = left.sum()
        if total <= 0.0:  # p and q are equal up to rounding: what was drawn from q is drawn from p
            return token
        left = left / total
    return draw(left, seed, position, RESIDUAL_STREAM)


def draw(probabilities: Doubles, seed: int, position: int, stream: int) -> int:
    """A token drawn from ``probabilities`` (vocab_size,) with the noise of that stream."""
    ids = np.flatnonzero(probabilities > 0)
    noisy = np.log(probabilities[ids]) + gumbel(seed, position, ids, stream)
    return int(ids[np.argmax(noisy)])
