"""Drawing a token as a pure function of (logits, options, seed, position).

The noise of a token id at a position comes from a counter-based generator, so a draw does not depend
on the policy, the batch, or what was drawn before. Adding Gumbel noise to log-probabilities and taking
the argmax draws exactly from the softmax (Gumbel, 1954; Maddison et al., 2014).
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from specee.types import Sampling

Doubles = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]

_ROUNDS = 10
_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (0x9E3779B9, 0xBB67AE85)
_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)


def philox(counter: npt.NDArray[np.uint32], key: tuple[int, int]) -> npt.NDArray[np.uint32]:
    """Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).

    ``counter`` (n, 4) uint32 and a key of two 32-bit words -> (n, 4) uint32 of random bits.
    """
    c0, c1, c2, c3 = (counter[:, i].astype(np.uint64) for i in range(4))
    for turn in range(_ROUNDS):
        k0, k1 = ((key[i] + turn * _WEYL[i]) & 0xFFFFFFFF for i in range(2))
        first, second = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            (second >> _HALF) ^ c1 ^ np.uint64(k0),
            second & _LOW,
            (first >> _HALF) ^ c3 ^ np.uint64(k1),
            first & _LOW,
        )
    return np.stack([c0, c1, c2, c3], axis=1).astype(np.uint32)


def uniforms(seed: int, position: int, token_ids: npt.ArrayLike, stream: int = 0) -> Doubles:
    """One number in (0, 1) for each token id at a position: float64, the shape of ``token_ids``.

    key = (seed mod 2^32, (seed >> 32) mod 2^32); counter = (id >> 2, position mod 2^32, position >> 32,
    stream mod 2^32); word ``id & 3`` of the output, u = (word + 0.5) / 2^32, which is exact and never 0 or 1.
    ``stream`` is 0 for the draws of :func:`sample`; others are independent of it at the same position.
    """
    ids = np.asarray(token_ids, dtype=np.int64)
    blocks, index = np.unique(ids.reshape(-1) >> 2, return_inverse=True)
    counter = np.zeros((len(blocks), 4), np.uint32)
    counter[:, 0] = blocks
    counter[:, 1] = position & 0xFFFFFFFF
    counter[:, 2] = (position >> 32) & 0xFFFFFFFF
    counter[:, 3] = stream & 0xFFFFFFFF
    words = philox(counter, (seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF))
    chosen = words[index, ids.reshape(-1) & 3].reshape(ids.shape)
    numbers: Doubles = (chosen.astype(np.float64) + 0.5) * 2.0**-32
    return numbers


def gumbel(seed: int, position: int, token_ids: npt.ArrayLike, stream: int = 0) -> Doubles:
    """Standard Gumbel noise ``-log(-log(u))`` for each token id, u of :func:`uniforms`: float64."""
    noise: Doubles = -np.log(-np.log(uniforms(seed, position, token_ids, stream)))
    return noise


def penalised(logits: npt.ArrayLike, path_tokens: npt.ArrayLike, penalty: float) -> Floats:
    """Logits with those of tokens already in the text made less likely: a new (vocab_size,) fp32 array.

    ``path_tokens``: ids of all tokens before the one to draw, prompt included, in any order; repeats count
    once. A logit below zero is multiplied by ``penalty``, any other divided by it, in fp32 with the penalty
    rounded to fp32. A penalty of 1 changes nothing. (Keskar et al., 2019)
    """
    changed = np.array(logits, np.float32)
    if penalty == 1:
        return changed
    ids = np.unique(np.asarray(path_tokens, np.int64))
    by, old = np.float32(penalty), changed[ids]
    changed[ids] = np.where(old < 0, old * by, old / by)
    return changed


def kept(logits: npt.ArrayLike, sampling: Sampling) -> tuple[npt.NDArray[np.int64], Doubles]:
    """Ids that survive top-k, then top-p, then min-p, and their scores ``logit / temperature`` (float64).

    top-k keeps every id that scores at least the k-th largest (ties stay). top-p sorts what is left
    by falling score, lower id first among equals, and keeps the smallest prefix that holds at least
    ``top_p`` of the softmax mass, one id at least. min-p keeps, of these, every id that scores at least the
    best score + log(``min_p``): 1 keeps the best and its ties.
    """
    scores = np.asarray(logits, np.float32).astype(np.float64) / sampling.temperature
    ids = np.arange(len(scores), dtype=np.int64)
    if 0 < sampling.top_k < len(scores):
        threshold = np.partition(scores, -sampling.top_k)[-sampling.top_k]
        ids = ids[scores >= threshold]
    if sampling.top_p < 1.0:
        # Sums run one by one, the total in order of ids, so that the native version can add alike.
        total = np.cumsum(np.exp(scores[ids] - scores[ids].max()))[-1]
        ids = ids[np.argsort(-scores[ids], kind="stable")]
        mass = np.cumsum(np.exp(scores[ids] - scores[ids[0]]))
        ids = ids[: int(np.searchsorted(mass, sampling.top_p * total, side="left")) + 1]
    if sampling.min_p > 0.0:
        ids = ids[scores[ids] >= scores[ids].max() + math.log(sampling.min_p)]
    return ids, scores[ids]


def best(
    logits: npt.ArrayLike, sampling: Sampling, position: int, most: int
) -> tuple[npt.NDArray[np.int64], Doubles]:
    """The ``most`` likeliest ids at ``position``, and the scores that rank them, best first.

    Scores are those of :func:`kept` plus Gumbel noise, at temperature 0 the logits; the lower id comes first
    among equals. There are fewer where fewer are kept. The first id is what :func:`sample` draws, so the
    others are what it would draw without the ones before them (Kool et al., "Stochastic beams and where to
    find them", 2019).
    """
    if sampling.temperature == 0:
        scores = np.asarray(logits, np.float32).astype(np.float64)
        ids = np.flatnonzero(scores > -np.inf)
        scores = scores[ids]
    else:
        ids, scores = kept(logits, sampling)
        ids, scores = ids[scores > -np.inf], scores[scores > -np.inf]
        scores = scores + gumbel(sampling.seed, position, ids)
    order = np.lexsort((ids, -scores))[:most]
    return ids[order], scores[order]


def sample(logits: npt.ArrayLike, sampling: Sampling, position: int) -> int:
    """The token at ``position``, given (vocab_size,) fp32 logits of the row before it.

    A repetition penalty is not applied here, since it needs the text: give what :func:`penalised` returns.
    Greedy at temperature 0; otherwise the argmax over the kept ids of score plus Gumbel noise. The
    lowest id wins among equals in both.
    """
    if sampling.temperature == 0:
        return int(np.argmax(np.asarray(logits)))
    ids, scores = kept(logits, sampling)
    noisy = scores + gumbel(sampling.seed, position, ids)
    return int(ids[noisy == noisy.max()].min())
