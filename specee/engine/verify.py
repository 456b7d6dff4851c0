"""The full model's tokens after every node of the trees of a step, drawn as their requests ask."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Seq
from typing import TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from specee.acceptance import probabilities, rejection_token
from specee.backends.protocol import Backend, Floats, Work
from specee.clock import Clock
from specee.drafting import DraftTree
from specee.engine.sequence import ActiveSequence
from specee.errors import ConfigurationError
from specee.sampling import penalised, sample

Target: TypeAlias = Callable[[int], int]
Pair: TypeAlias = tuple[ActiveSequence, DraftTree]


def verify(backend: Backend, pairs: Seq[Pair], clock: Clock) -> list[Target]:
    """Take every tree through all layers; for each give what :func:`specee.acceptance.walk` asks.

    All rows of all trees go through a layer, and through the head, at once. Where scores have to come to
    Python (processors of the user, classical rejection), a token is judged when it is asked for: once, on an
    accepted prefix.
    """
    judged = [sequence.judged for sequence, _ in pairs]
    if True not in judged:
        return _draw(backend, pairs, clock)
    clock.timed("verify", backend.advance, _work(pairs), backend.config.num_layers)
    apart = [[pair for pair, own in zip(pairs, judged, strict=True) if own is kind] for kind in (False, True)]
    plain = iter(_draw(backend, apart[0], clock) if apart[0] else [])  # complete already: only the head runs
    logits = clock.timed("head", backend.logits, _work(apart[1]))
    scored = iter(_judge(*pair, own) for pair, own in zip(apart[1], _split(logits, apart[1]), strict=True))
    return [next(scored if own else plain) for own in judged]


def _work(pairs: Seq[Pair]) -> Work:
    return [(tree.state, tree.slots) for _, tree in pairs]


def _draw(backend: Backend, pairs: Seq[Pair], clock: Clock) -> list[Target]:
    """Tokens of the built-in rules, drawn by the backend."""
    drawn = [tree.sampling for _, tree in pairs if not tree.sampling.greedy]
    options = [tree.sampling for _, tree in pairs for _ in tree.slots] if drawn else None
    tokens, layers, head = backend.verify(_work(pairs), options)
    clock.verify += layers
    clock.head += head
    if len(pairs) == 1:  # most steps: what runs after a native call runs with cold caches
        return [tokens.__getitem__]
    return [own.__getitem__ for own in _split(tokens, pairs)]


Rows = TypeVar("Rows", list[int], Floats)


def _split(rows: Rows, pairs: Seq[Pair]) -> list[Rows]:
    """What belongs to each tree: one row a node."""
    parts, begin = [], 0
    for _, tree in pairs:
        parts.append(rows[begin : begin + len(tree.slots)])
        begin += len(tree.slots)
    return parts


def _judge(sequence: ActiveSequence, tree: DraftTree, logits: Floats) -> Target:
    sampling = tree.sampling

    def target(node: int) -> int:
        text = np.array([*sequence.text, *tree.path(node)], np.int64)
        text.setflags(write=False)
        scores = penalised(logits[node], text, sampling.repetition_penalty)
        for processor in sequence.request.processors:
            scores = checked_scores(processor(text, scores), len(scores))
        if not tree.rejection:
            return sample(scores, sampling, len(text))
        drafts = [(tree.tokens[child], tree.distributions[child]) for child in tree.children(node)]
        return rejection_token(probabilities(scores, sampling), drafts, sampling.seed, len(text))

    return target


def checked_scores(scores: npt.ArrayLike, vocabulary: int) -> Floats:
    """What a processor returned, if it can be scores (vocabulary,). Raises ConfigurationError."""
    array = np.asarray(scores, np.float32)
    if array.shape != (vocabulary,) or np.isnan(array).any() or not (array > -np.inf).any():
        raise ConfigurationError(
            f"a processor returned scores of shape {array.shape}: allowed is ({vocabulary},), without NaN "
            "and with at least one token above minus infinity"
        )
    return np.minimum(array, np.finfo(np.float32).max)  # infinity is no number to take differences of
